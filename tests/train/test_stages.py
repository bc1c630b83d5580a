import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import spatialdata
import torch
import zarr

from stp import Vocabulary, tl
from stp.data.dataset import TokenDataset
from stp.data.store import SpotStore
from stp.io import write_store
from stp.metrics import recall_at_k
from stp.models import GeneEncoder, GeneEncoderConfig, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain
from stp.train.validation import masked_loss

PRETRAIN = PretrainConfig(
    phases=(Phase(epochs=15, batch_size=20), Phase(objective="neighborhood", epochs=4, batch_size=18)),
    learning_rate=3e-3,
    min_genes=5,
)
SMALL = dataclasses.replace(PRETRAIN, phases=(Phase(batch_size=10),))
ALIGN = AlignConfig(epochs=12, batch_size=20, accumulate=1, learning_rate=2e-3, min_genes=5, projection_width=32)


@pytest.fixture(scope="module")
def pretrained(stores, vocabulary, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    config = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    return pretrain(stores[:2], folder, validation=stores[2:], **config), folder


@pytest.fixture(scope="module")
def aligned(stores, tiny_config, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned")
    settings = {"gene_encoder": pretrained[1], "image_encoder": tiny_config.image, "config": ALIGN}
    return align(stores[:2], folder, validation=stores[2:], **settings), folder


def metrics(folder, split="validation", phase=0):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split and line["phase"] == phase]


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- both stages learn


def test_pretraining_learns(pretrained):
    masked = [line["masked"] for line in metrics(pretrained[1])]
    assert len(masked) == 15
    assert masked[0] == pytest.approx(np.log(32), abs=0.05)  # all genes are about as frequent
    assert min(masked) < masked[0] - 0.1
    assert metrics(pretrained[1], phase=1)[-1]["masked"] < masked[0] - 0.1


def test_both_losses_of_a_neighborhood_phase_are_logged(pretrained):
    for line in metrics(pretrained[1], "train", phase=1):
        assert line["loss"] == pytest.approx(line["masked"] + line["neighborhood"], rel=1e-5)


def test_alignment_learns(aligned):
    scores = metrics(aligned[1])
    assert {line["chance@5"] for line in scores} == {0.05}
    assert max(line["recall@5"] for line in scores) >= 0.2  # four times chance, on a slide never trained on
    first, last = (metrics(aligned[1], "train")[i] for i in (0, -1))
    assert last["localized"] > 0.8
    for name in ("patch_gene", "region_gene", "patch_region", "localization"):
        assert last[name] < 0.8 * first[name]


def test_alignment_starts_from_the_gene_encoder_and_trains_it(stores, pretrained, aligned, tiny_config, tmp_path):
    """One step of no size leaves the genes as they came."""
    still = dataclasses.replace(ALIGN, epochs=1, learning_rate=1e-30, min_learning_rate=0, weight_decay=0.0)
    settings = {"gene_encoder": pretrained[0], "image_encoder": tiny_config.image}
    stamp = align(stores[:1], tmp_path, config=dataclasses.replace(still, batch_size=10), **settings)
    assert same_weights(stamp.gene_encoder, pretrained[0])
    assert not same_weights(aligned[0].gene_encoder, pretrained[0])


# ---- what is returned and left on disk


@pytest.mark.parametrize(("stage", "kind"), [("pretrained", GeneEncoder), ("aligned", Stamp)])
def test_the_run_directory_is_a_model(request, stage, kind, vocabulary):
    model, folder = request.getfixturevalue(stage)
    names = {file.name for file in folder.iterdir()}
    run = {"training.json", "metrics.jsonl", "resume.pt", "run.lock"}
    assert names == {"model.safetensors", "config.json", "vocabulary.parquet", "README.md", *run}
    assert re.match(r"pretrain: \d+ spots of slide0.zarr, .*; weights chosen on \d+ spots of", model.card.trained_on[0])
    assert len(model.card.trained_on) == (1 if kind is GeneEncoder else 2)
    assert "score" in model.card.metrics
    assert same_weights(kind.from_pretrained(folder), model)
    assert model.vocabulary.digest == vocabulary.digest
    assert not model.training and next(model.parameters()).device.type == "cpu"


def test_the_aligned_model_is_the_best_by_validation(stores, aligned):
    """Its recall on the validation slide, computed as a user would, is the highest that was logged."""
    stamp, folder = aligned
    sdata = spatialdata.read_zarr(stores[2])
    tl.tokenize(sdata, stamp, context_length=32)
    tl.embed_genes(sdata, stamp)
    tl.embed_images(sdata, stamp)
    obsm = sdata["table"].obsm
    found = recall_at_k(obsm["X_stp_images_aligned"], obsm["X_stp_genes_aligned"])[5]
    assert found == pytest.approx(max(line["recall@5"] for line in metrics(folder)), abs=0.011)


def test_the_pretrained_model_is_the_best_of_the_last_phase(stores, vocabulary, ranked, pretrained):
    encoder, folder = pretrained
    opened = [SpotStore(stores[2])]
    dataset = TokenDataset(opened, vocabulary, ranked(opened, 32), fraction=0.15, seed=PRETRAIN.seed)
    found = masked_loss(encoder, dataset, [np.arange(100)], PRETRAIN)["masked"]
    assert found == pytest.approx(min(line["masked"] for line in metrics(folder, phase=1)), rel=1e-5)
    assert found != pytest.approx(min(line["masked"] for line in metrics(folder, phase=0)), rel=1e-3)


def test_a_finished_run_is_only_read(stores, vocabulary, tiny_config, pretrained):
    model, folder = pretrained
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    again = pretrain(stores[:2], folder, validation=stores[2:], **settings)
    assert same_weights(again, model)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# ---- bad input: one clear error each


@pytest.fixture
def lacking(adata, image, tmp_path):
    """Stores without an image, and without coordinates."""
    plain = tmp_path / "no_image.zarr"
    write_store(adata, plain)
    del adata.obsm["spatial"]
    bare = tmp_path / "no_coordinates.zarr"
    write_store(adata, bare)
    return plain, bare


@pytest.fixture
def settings(vocabulary, tiny_config, tmp_path):
    """Short arguments of both stages, by their function."""
    phases = (Phase(batch_size=20),)
    encoder = GeneEncoder(tiny_config.gene, vocabulary)
    pretraining = {"vocabulary": vocabulary, "model": tiny_config.gene}
    return {
        pretrain: pretraining | {"config": dataclasses.replace(PRETRAIN, phases=phases)},
        align: {"gene_encoder": encoder, "image_encoder": tiny_config.image, "config": ALIGN},
    }


both = pytest.mark.parametrize("stage", [pretrain, align], ids=lambda stage: stage.__name__)


def test_alignment_refuses_stores_without_an_image_by_name(stores, lacking, settings, tmp_path):
    message = "alignment needs an image, which these stores lack: .*no_image.zarr; write them again with it"
    with pytest.raises(ValueError, match=message):
        align([stores[0], lacking[0]], tmp_path / "out", **settings[align])
    with pytest.raises(ValueError, match=message):
        align(stores[:1], tmp_path / "out", validation=lacking[:1], **settings[align])
    assert not (tmp_path / "out").exists()


def test_neighborhood_training_refuses_stores_without_coordinates_by_name(stores, lacking, settings, tmp_path):
    config = {"config": PRETRAIN}
    with pytest.raises(ValueError, match="neighborhood training needs spot coordinates, .*: .*no_coordinates.zarr"):
        pretrain([stores[0], *lacking], tmp_path / "out", **settings[pretrain] | config)
    assert not (tmp_path / "out").exists()


def test_masked_training_needs_counts_alone(lacking, settings, tmp_path):
    pretrain(lacking[1:], tmp_path / "out", **settings[pretrain] | {"config": SMALL})
    assert metrics(tmp_path / "out", "train")[-1]["step"] == 10


@pytest.mark.parametrize("stage", ["masked", "neighborhood", "align"])
def test_shrunk_batches_are_said_aloud_to_the_caller(stage, stores, settings, tmp_path):
    with pytest.warns(UserWarning, match="100 spots are few: batches of .* for 10 steps an epoch") as caught:
        if stage == "align":
            large = dataclasses.replace(ALIGN, epochs=1, batch_size=64)
            align(stores[:1], tmp_path / "out", **settings[align] | {"config": large})
        else:
            large = dataclasses.replace(PRETRAIN, phases=(Phase(objective=stage, batch_size=90),))
            pretrain(stores[:1], tmp_path / "out", **settings[pretrain] | {"config": large})
    assert [warning.filename for warning in caught] == [__file__]


@both
@pytest.mark.parametrize("kind", ["nothing", "file", "folder", "zarr", "spatialdata"])
def test_what_is_no_store_is_refused(stage, kind, settings, sdata, tmp_path):
    path = tmp_path / "not_a_store.zarr"
    if kind == "file":
        path.write_text("counts")
    elif kind == "folder":
        path.mkdir()
    elif kind == "zarr":
        zarr.create_array(path, data=np.zeros(3))
    elif kind == "spatialdata":
        sdata.write(path)
    with pytest.raises(ValueError, match=r"not_a_store.zarr is not a training store .*; stp.io.write_store makes one"):
        stage([path], tmp_path / "out", **settings[stage])


@both
def test_one_path_instead_of_a_list_is_refused(stage, stores, settings, tmp_path):
    for path in (stores[0], str(stores[0])):
        with pytest.raises(TypeError, match="stores is one path, .*; pass a list of paths"):
            stage(path, tmp_path / "out", **settings[stage])


@both
def test_another_table_is_refused(stage, stores, settings, tmp_path):
    with pytest.raises(ValueError, match="is not a training store with a table 'cells'"):
        stage(stores[:1], tmp_path / "out", table_key="cells", **settings[stage])


@both
def test_a_vocabulary_without_means_is_refused_before_any_work(stage, stores, vocabulary, settings, tmp_path):
    bare = Vocabulary.from_genes(vocabulary.gene_ids)
    argument = {"vocabulary": bare} if stage is pretrain else {"gene_encoder": GeneEncoder(GeneEncoderConfig(), bare)}
    with pytest.raises(ValueError, match=r"no means to rank genes by; Vocabulary\.fit"):
        stage(stores[:1], tmp_path / "out", **settings[stage] | argument)
    assert not (tmp_path / "out").exists()


@both
@pytest.mark.filterwarnings("ignore:.*spots are few")
def test_no_spot_with_enough_genes_is_refused_and_can_be_mended(stage, stores, settings, tmp_path):
    few = dataclasses.replace(settings[stage]["config"], min_genes=33)
    with pytest.raises(ValueError, match="no spot of 1 stores detects 33 genes; lower min_genes"):
        stage(stores[:1], tmp_path / "out", **settings[stage] | {"config": few})
    mended = settings[stage]["config"]
    if stage is align:
        mended = dataclasses.replace(mended, epochs=1)
    stage(stores[:1], tmp_path / "out", **settings[stage] | {"config": mended})


def test_a_vocabulary_of_another_species_is_refused(stores, settings, tmp_path):
    mouse = Vocabulary.from_genes(["ENSMUSG00000045394", "ENSMUSG00000023043"])
    mouse = dataclasses.replace(mouse, means=np.ones(2))
    with pytest.raises(ValueError, match="no gene of the stores is in the vocabulary"):
        pretrain(stores[:1], tmp_path / "out", **settings[pretrain] | {"vocabulary": mouse})


def test_an_image_too_coarse_for_the_encoder_is_refused(stores, settings, tiny_config, tmp_path):
    fine = dataclasses.replace(tiny_config.image, um_per_px=0.5)
    with pytest.raises(ValueError, match="slide0.zarr: the image has 4 um per pixel, patches of 0.5 are"):
        align(stores[:2], tmp_path / "out", **settings[align] | {"image_encoder": fine})
    assert not (tmp_path / "out").exists()


def test_a_stamp_is_no_gene_encoder(stores, settings, stamp, tmp_path):
    stamp.save_pretrained(tmp_path / "stamp")
    with pytest.raises(ValueError, match="holds a Stamp; load it with that class, not GeneEncoder"):
        align(stores[:2], tmp_path / "out", **settings[align] | {"gene_encoder": tmp_path / "stamp"})


# ---- data that are nearly too small


def test_spots_without_neighbors_are_refused(adata, settings, tmp_path):
    write_store(adata[:8].copy(), tmp_path / "small.zarr")
    config = dataclasses.replace(PRETRAIN, phases=(Phase(objective="neighborhood", batch_size=9),))
    with pytest.raises(ValueError, match="an epoch has no full batch: .*none with enough neighbors"):
        pretrain([tmp_path / "small.zarr"], tmp_path / "out", **settings[pretrain] | {"config": config})


def test_validation_slides_without_a_usable_spot_do_not_count(adata, stores, settings, tmp_path):
    adata.X[:] = 0
    adata.X.eliminate_zeros()
    write_store(adata, tmp_path / "empty.zarr")
    held_out = [tmp_path / "empty.zarr", stores[2]]
    pretrain(stores[:2], tmp_path / "out", validation=held_out, **settings[pretrain])
    assert np.isfinite(metrics(tmp_path / "out")[0]["masked"])


def test_a_loss_that_is_not_finite_names_the_stores(stores, vocabulary, tiny_config, tmp_path):
    phase = Phase(batch_size=10)
    config = PretrainConfig(phases=(phase,), min_genes=5, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(FloatingPointError, match=r"not finite|the loss is nan") as caught:
        pretrain(stores[:1], tmp_path, vocabulary=vocabulary, model=tiny_config.gene, config=config)
    assert f"the batch is of {stores[0]}" in str(caught.value)


def test_images_that_do_not_fit_the_disk_are_refused_before_training(stores, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**4))
    with pytest.raises(OSError, match="the decoded images of 2 stores take .* choose an output_dir on a larger disk"):
        align(stores[:2], tmp_path / "out", **settings[align])
    assert not metrics(tmp_path / "out", "train")
