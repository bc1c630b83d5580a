import dataclasses
import json
import re

import numpy as np
import pytest
import spatialdata
import torch

from stp import tl
from stp.data.masked_tokens import TokenDataset
from stp.data.store import SpotStore
from stp.metrics import recall_at_k
from stp.models import GeneEncoder, Stamp
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain
from stp.train.validation import masked_loss

PRETRAIN = PretrainConfig(
    phases=(
        Phase(epochs=15, batch_size=20),
        Phase(objective="neighborhood", epochs=4, batch_size=18),
    ),
    learning_rate=3e-3,
    min_genes=5,
)
SMALL = dataclasses.replace(PRETRAIN, phases=(Phase(batch_size=10),))
ALIGN = AlignConfig(
    epochs=12, batch_size=20, accumulate=1, learning_rate=2e-3, min_genes=5, projection_width=32
)


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
    assert (
        max(line["recall@5"] for line in scores) >= 0.2
    )  # four times chance, on a slide never trained on
    first, last = (metrics(aligned[1], "train")[i] for i in (0, -1))
    assert last["localized"] > 0.8
    for name in ("patch_gene", "region_gene", "patch_region", "localization"):
        assert last[name] < 0.8 * first[name]


def test_alignment_starts_from_the_gene_encoder_and_trains_it(
    stores, pretrained, aligned, tiny_config, tmp_path
):
    """One step of no size leaves the genes as they came."""
    still = dataclasses.replace(
        ALIGN, epochs=1, learning_rate=1e-30, min_learning_rate=0, weight_decay=0.0
    )
    settings = {"gene_encoder": pretrained[0], "image_encoder": tiny_config.image}
    stamp = align(
        stores[:1], tmp_path, config=dataclasses.replace(still, batch_size=10), **settings
    )
    assert same_weights(stamp.gene_encoder, pretrained[0])
    assert not same_weights(aligned[0].gene_encoder, pretrained[0])


# ---- what is returned and left on disk


@pytest.mark.parametrize(("stage", "kind"), [("pretrained", GeneEncoder), ("aligned", Stamp)])
def test_the_run_directory_is_a_model(request, stage, kind, vocabulary):
    model, folder = request.getfixturevalue(stage)
    names = {file.name for file in folder.iterdir()}
    run = {"training.json", "metrics.jsonl", "resume.pt"}
    assert names == {"model.safetensors", "config.json", "vocabulary.parquet", "README.md", *run}
    assert re.match(
        r"pretrain: \d+ spots of slide0.zarr, .*; weights chosen on \d+ spots of",
        model.card.trained_on[0],
    )
    assert len(model.card.trained_on) == (1 if kind is GeneEncoder else 2)
    assert "score" in model.card.metrics
    assert same_weights(kind.from_pretrained(folder), model)
    assert model.vocabulary.digest == vocabulary.digest
    assert not model.training and next(model.parameters()).device.type == "cpu"


def test_the_aligned_model_is_the_best_by_validation(stores, aligned):
    """Its recall on the validation slide, computed by public calls, is the highest of the log."""
    stamp, folder = aligned
    sdata = spatialdata.read_zarr(stores[2])
    tl.tokenize(sdata, stamp, context_length=32)
    tl.embed_genes(sdata, stamp)
    tl.embed_images(sdata, stamp)
    obsm = sdata["table"].obsm
    score = recall_at_k(obsm["X_stp_images_aligned"], obsm["X_stp_genes_aligned"])[5]
    assert score == pytest.approx(max(line["recall@5"] for line in metrics(folder)), abs=0.011)


def test_the_pretrained_model_is_the_best_of_the_last_phase(stores, vocabulary, ranked, pretrained):
    encoder, folder = pretrained
    opened = [SpotStore(stores[2])]
    dataset = TokenDataset(
        opened, vocabulary, ranked(opened, 32), fraction=0.15, seed=PRETRAIN.seed
    )
    score = masked_loss(encoder, dataset, [np.arange(100)], PRETRAIN)["masked"]
    assert score == pytest.approx(
        min(line["masked"] for line in metrics(folder, phase=1)), rel=1e-5
    )
    assert score != pytest.approx(
        min(line["masked"] for line in metrics(folder, phase=0)), rel=1e-3
    )


def test_a_finished_run_is_only_read(stores, vocabulary, tiny_config, pretrained):
    model, folder = pretrained
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    settings = {"vocabulary": vocabulary, "model": tiny_config.gene, "config": PRETRAIN}
    again = pretrain(stores[:2], folder, validation=stores[2:], **settings)
    assert same_weights(again, model)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
