"""Both stages refuse bad input before any work, with a clear error; and nearly too few data."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import spatialdata
import zarr

from stp import Vocabulary
from stp.io import write_store
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain

MASKED = PretrainConfig(phases=(Phase(batch_size=20),), learning_rate=3e-3, min_genes=5)
ALIGN = AlignConfig(
    epochs=1, batch_size=20, accumulate=1, learning_rate=2e-3, min_genes=5, projection_width=32
)


def metrics(folder, split="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


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
    encoder = GeneEncoder(tiny_config.gene, vocabulary)
    pretraining = {"vocabulary": vocabulary, "model": tiny_config.gene}
    return {
        pretrain: pretraining | {"config": MASKED},
        align: {"gene_encoder": encoder, "image_encoder": tiny_config.image, "config": ALIGN},
    }


both = pytest.mark.parametrize("stage", [pretrain, align], ids=lambda stage: stage.__name__)


def test_alignment_refuses_stores_without_an_image_by_name(stores, lacking, settings, tmp_path):
    message = "alignment needs an image, which these stores lack: .*no_image.zarr; write them again"
    with pytest.raises(ValueError, match=message):
        align([stores[0], lacking[0]], tmp_path / "out", **settings[align])
    with pytest.raises(ValueError, match=message):
        align(stores[:1], tmp_path / "out", validation=lacking[:1], **settings[align])
    assert not (tmp_path / "out").exists()


def test_neighborhood_training_refuses_stores_without_coordinates_by_name(
    stores, lacking, settings, tmp_path
):
    phases = (Phase(batch_size=20), Phase(objective="neighborhood", batch_size=18))
    config = {"config": dataclasses.replace(MASKED, phases=phases)}
    with pytest.raises(
        ValueError, match="neighborhood training needs spot coordinates, .*: .*no_coordinates.zarr"
    ):
        pretrain([stores[0], *lacking], tmp_path / "out", **settings[pretrain] | config)
    assert not (tmp_path / "out").exists()


def test_masked_training_needs_counts_alone(lacking, settings, tmp_path):
    pretrain(lacking[1:], tmp_path / "out", **settings[pretrain])
    assert metrics(tmp_path / "out")[-1]["step"] == 10


@pytest.mark.parametrize("stage", ["masked", "neighborhood", "align"])
def test_shrunk_batches_are_said_aloud_to_the_caller(stage, stores, settings, tmp_path):
    n_spots = 99 if stage == "neighborhood" else 100  # in whole groups of nine
    with pytest.warns(
        UserWarning,
        match=f"only {n_spots} spots to train on: a batch has .* so that an epoch has 10 steps",
    ) as caught:
        if stage == "align":
            large = dataclasses.replace(ALIGN, epochs=1, batch_size=64)
            align(stores[:1], tmp_path / "out", **settings[align] | {"config": large})
        else:
            large = dataclasses.replace(MASKED, phases=(Phase(objective=stage, batch_size=90),))
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
    message = r"not_a_store.zarr is not a training store .*; stp.io.write_store makes one"
    if not path.exists():
        message = "there is no store at .*not_a_store.zarr; check the path"
    with pytest.raises(ValueError, match=message):
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
def test_a_vocabulary_without_means_is_refused_before_any_work(
    stage, stores, vocabulary, settings, tmp_path
):
    bare = Vocabulary.from_genes(vocabulary.gene_ids)
    argument = (
        {"vocabulary": bare}
        if stage is pretrain
        else {"gene_encoder": GeneEncoder(GeneEncoderConfig(), bare)}
    )
    with pytest.raises(ValueError, match=r"no means to rank genes by; Vocabulary\.fit"):
        stage(stores[:1], tmp_path / "out", **settings[stage] | argument)
    assert not (tmp_path / "out").exists()


@both
@pytest.mark.filterwarnings("ignore:there are only")
def test_no_spot_with_enough_genes_is_refused_and_can_be_mended(stage, stores, settings, tmp_path):
    few = dataclasses.replace(settings[stage]["config"], min_genes=33)
    with pytest.raises(ValueError, match="no spot of 1 stores detects 33 genes; lower min_genes"):
        stage(stores[:1], tmp_path / "out", **settings[stage] | {"config": few})
    stage(stores[:1], tmp_path / "out", **settings[stage])


def test_a_vocabulary_of_another_species_is_refused(stores, settings, tmp_path):
    mouse = Vocabulary.from_genes(["ENSMUSG00000045394", "ENSMUSG00000023043"])
    mouse = dataclasses.replace(mouse, means=np.ones(2))
    with pytest.raises(
        ValueError,
        match="slide0.zarr has genes of human, the vocabulary is of mouse; train on stores of one",
    ):
        pretrain(stores[:1], tmp_path / "out", **settings[pretrain] | {"vocabulary": mouse})
    assert not (tmp_path / "out").exists()


def test_stores_have_most_umis_in_the_vocabulary(stores, settings, vocabulary, tmp_path):
    few = Vocabulary.from_genes(vocabulary.gene_ids[:4])
    few = dataclasses.replace(few, means=np.ones(4))
    with pytest.raises(ValueError, match=r"slide0\.zarr: this vocabulary knows 4 genes"):
        pretrain(stores[:1], tmp_path / "out", **settings[pretrain] | {"vocabulary": few})
    assert not (tmp_path / "out").exists()


def test_an_image_too_coarse_for_the_encoder_is_refused(stores, settings, tiny_config, tmp_path):
    fine = dataclasses.replace(tiny_config.image, um_per_px=0.5)
    with pytest.raises(
        ValueError, match="slide0.zarr: the image has 4 µm per pixel, patches of 0.5 are"
    ):
        align(stores[:2], tmp_path / "out", **settings[align] | {"image_encoder": fine})
    assert not (tmp_path / "out").exists()


def test_a_stamp_is_no_gene_encoder(stores, settings, stamp, tmp_path):
    stamp.save_pretrained(tmp_path / "stamp")
    with pytest.raises(ValueError, match="contains a Stamp; load it with that class"):
        align(
            stores[:2], tmp_path / "out", **settings[align] | {"gene_encoder": tmp_path / "stamp"}
        )


@both
def test_two_stores_with_one_content_are_refused_and_both_named(stage, stores, settings, tmp_path):
    (tmp_path / "link.zarr").symlink_to(stores[0])
    with pytest.raises(
        ValueError,
        match=r"slide0\.zarr and .*link\.zarr have the same content; list every slide once",
    ):
        stage([*stores[:2], tmp_path / "link.zarr"], tmp_path / "out", **settings[stage])
    copy = shutil.copytree(stores[1], tmp_path / "copy.zarr")
    with pytest.raises(ValueError, match=r"slide1\.zarr and .*copy\.zarr have the same content"):
        stage(stores[:2], tmp_path / "out", validation=[copy], **settings[stage])
    with pytest.raises(ValueError, match=r"slide1\.zarr and .*slide1\.zarr have the same content"):
        stage(stores[:2], tmp_path / "out", validation=stores[1:], **settings[stage])


@pytest.mark.parametrize("stores_of", ["part alone", "part and whole"])
def test_a_part_of_a_store_that_has_its_digest_is_refused(stores_of, stores, settings, tmp_path):
    part = spatialdata.read_zarr(stores[0])
    part.tables["table"] = part["table"][:50].copy()
    part.write(tmp_path / "part.zarr")
    listed = [tmp_path / "part.zarr"]
    if stores_of == "part and whole":
        listed.insert(0, stores[0])
    with pytest.raises(ValueError, match=r"spots of .*part\.zarr changed after .*write it again"):
        pretrain(listed, tmp_path / "out", **settings[pretrain])


@both
def test_a_device_that_is_not_there_is_refused(stage, stores, settings, tmp_path):
    for device in ("gpu", "cuda:99"):
        elsewhere = dataclasses.replace(settings[stage]["config"], device=device)
        with pytest.raises(
            ValueError,
            match=f"device '{device}' cannot be used here: .*; stp doctor lists what can",
        ):
            stage(stores[:1], tmp_path / "out", **settings[stage] | {"config": elsewhere})
    assert not (tmp_path / "out").exists()


def test_more_spots_together_than_any_slide_has_are_refused(stores, settings, tmp_path):
    many = dataclasses.replace(ALIGN, batch_size=200, spots_per_slide=101)
    with pytest.raises(
        ValueError, match="no store has 101 spots that detect 5 genes .* lower spots_per_slide"
    ):
        align(stores[:2], tmp_path / "out", **settings[align] | {"config": many})
    assert not (tmp_path / "out").exists()


def test_a_grid_without_nine_cells_is_refused_before_images_are_decoded(
    stores, settings, tiny_config, tmp_path
):
    coarse = dataclasses.replace(tiny_config.image, image_size=16)
    with pytest.raises(
        ValueError, match="localization needs 3 x 3 tokens .* this backbone makes 2 x 2"
    ):
        align(stores[:2], tmp_path / "out", **settings[align] | {"image_encoder": coarse})
    without = dataclasses.replace(ALIGN, losses=("patch_target",))
    align(
        stores[:1],
        tmp_path / "out",
        **settings[align] | {"image_encoder": coarse, "config": without},
    )


def test_spots_that_lie_nowhere_are_refused_by_name(stores, settings, tmp_path):
    path = shutil.copytree(stores[0], tmp_path / "moved.zarr")
    zarr.open_group(path)["tables/table/obsm/spatial"][3] = np.nan
    with pytest.raises(
        ValueError, match="moved.zarr has spots without finite coordinates; write it again"
    ):
        align([path], tmp_path / "out", **settings[align])


@pytest.mark.parametrize("level", ["s0", "s1"])
def test_a_store_that_has_lost_pixels_under_spots_is_refused_by_name(
    level, stores, settings, tmp_path
):
    path = shutil.copytree(stores[0], tmp_path / "lossy.zarr")
    shutil.rmtree(path / "images" / "image" / level / "c")
    with pytest.raises(
        ValueError, match="lossy.zarr: the image has no pixels where spots are: .* write the image"
    ):
        align([path], tmp_path / "out", **settings[align])


@pytest.mark.filterwarnings("ignore:there are only")
def test_a_store_that_was_written_anew_is_another_run(adata, settings, tmp_path):
    path, out = tmp_path / "slide.zarr", tmp_path / "out"
    write_store(adata, path)
    pretrain([path], out, **settings[pretrain])
    write_store(adata, path, overwrite=True)
    pretrain([path], out, **settings[pretrain])
    write_store(adata[::-1].copy(), path, overwrite=True)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(stores\)"):
        pretrain([path], out, **settings[pretrain])


# ---- data that are nearly too small


def test_spots_without_neighbors_are_refused(adata, settings, tmp_path):
    write_store(adata[:8].copy(), tmp_path / "small.zarr")
    config = dataclasses.replace(MASKED, phases=(Phase(objective="neighborhood", batch_size=9),))
    with pytest.raises(
        ValueError, match="an epoch has no full batch: .*none with enough neighbors"
    ):
        pretrain(
            [tmp_path / "small.zarr"], tmp_path / "out", **settings[pretrain] | {"config": config}
        )


def test_validation_slides_without_a_usable_spot_do_not_count(adata, stores, settings, tmp_path):
    adata.X[:] = 0
    adata.X.eliminate_zeros()
    write_store(adata, tmp_path / "empty.zarr")
    validation_stores = [tmp_path / "empty.zarr", stores[2]]
    pretrain(stores[:2], tmp_path / "out", validation=validation_stores, **settings[pretrain])
    assert np.isfinite(metrics(tmp_path / "out", "validation")[0]["masked"])


def test_a_loss_that_is_not_finite_names_the_stores(stores, vocabulary, tiny_config, tmp_path):
    phase = Phase(batch_size=10)
    config = PretrainConfig(phases=(phase,), min_genes=5, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(FloatingPointError, match=r"not finite|the loss is nan") as caught:
        pretrain(stores[:1], tmp_path, vocabulary=vocabulary, model=tiny_config.gene, config=config)
    assert f"the batch is of {stores[0]}" in str(caught.value)


def test_images_that_do_not_fit_the_disk_are_refused_before_training(
    stores, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**4))
    with pytest.raises(
        OSError,
        match="the decoded images of 2 stores take .* choose an output_dir on a larger disk",
    ):
        align(stores[:2], tmp_path / "out", **settings[align])
    assert not metrics(tmp_path / "out")
