"""Resuming equals never having stopped, however the run was stopped."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from stp.data.masked_tokens import TokenDataset
from stp.data.pairs import PairDataset
from stp.models import GeneEncoder
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain
from stp.train.engine.run_dir import RunDir

PHASES = (Phase(epochs=2, batch_size=20), Phase(objective="neighborhood", epochs=1, batch_size=18))
QUICK = {"min_genes": 5, "checkpoint_every": 4, "log_every": 1}
PRETRAIN = PretrainConfig(phases=PHASES, learning_rate=3e-3, **QUICK)
ALIGN = AlignConfig(
    epochs=2,
    batch_size=10,
    accumulate=2,
    learning_rate=2e-3,
    projection_width=32,
    rotate=True,
    stain_jitter=0.1,
    **QUICK,
)
DROPPING = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "drop_path_rate": 0.5}


class Interrupted(BaseException):
    """As Ctrl-C: nothing in between may catch it."""


@pytest.fixture(scope="module")
def encoder(vocabulary, tiny_config):
    return GeneEncoder(tiny_config.gene, vocabulary)


@pytest.fixture
def arguments(stores, vocabulary, tiny_config, encoder):
    """Arguments of a short run by stage: 30 steps in two phases, 20 that drop paths at random."""
    image = dataclasses.replace(tiny_config.image, backbone_args=DROPPING)
    validation = {"validation": stores[2:]}
    return {
        pretrain: {
            "vocabulary": vocabulary,
            "model": tiny_config.gene,
            "config": PRETRAIN,
            **validation,
        },
        align: {"gene_encoder": encoder, "image_encoder": image, "config": ALIGN, **validation},
    }


@pytest.fixture(scope="module")
def finished():
    """Results of runs that were never stopped, by stage."""
    return {}


@pytest.fixture
def uninterrupted(finished, stores, arguments, tmp_path):
    def run(stage):
        if stage not in finished:
            model = stage(stores[:2], tmp_path / "whole", **arguments[stage])
            finished[stage] = (model.state_dict(), timeless(tmp_path / "whole"))
        return finished[stage]

    return run


def timeless(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name != "spots_per_second"}
        for line in lines
    ]


def assert_same(model, folder, expected):
    weights, lines = expected
    assert timeless(folder) == lines
    ours = model.state_dict()
    assert ours.keys() == weights.keys()
    assert not [name for name in weights if not torch.equal(ours[name], weights[name])]


def stop_at(monkeypatch, owner, name, call):
    """Raise at this call of a method, before it does anything."""
    original, calls = getattr(owner, name), iter(range(1, 10_000))

    def stopping(*args, **kwargs):
        if next(calls) == call:
            raise Interrupted
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, stopping)


@pytest.mark.parametrize(
    ("stage", "owner", "method", "call"),
    [
        *(
            (pretrain, TokenDataset, "__getitem__", call) for call in (2, 11, 17, 24, 33)
        ),  # 11 validates
        # Ends of steps 4 and 20, of phase one; steps 4 and 11 of phase two, its end, the end.
        *((pretrain, RunDir, "save_checkpoint", call) for call in (1, 6, 7, 8, 10, 11, 12)),
        *((pretrain, GeneEncoder, "save_pretrained", call) for call in (1, 3)),
        *((align, PairDataset, "__getitem__", call) for call in (12, 35)),
        *((align, RunDir, "save_checkpoint", call) for call in (3, 6, 7, 8)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_resumed_equals_uninterrupted(
    stage, owner, method, call, stores, arguments, uninterrupted, tmp_path, monkeypatch
):
    expected = uninterrupted(stage)
    with monkeypatch.context() as patch:
        stop_at(patch, owner, method, call)
        with pytest.raises(Interrupted):
            stage(stores[:2], tmp_path / "out", **arguments[stage])
    torch.rand(5)
    model = stage(stores[:2], tmp_path / "out", **arguments[stage])
    assert_same(model, tmp_path / "out", expected)


@pytest.mark.parametrize("move", ["copy", "link", "relative path"])
def test_stores_that_moved_are_the_same_run(
    move, stores, arguments, uninterrupted, tmp_path, monkeypatch
):
    expected = uninterrupted(pretrain)
    with monkeypatch.context() as patch:
        stop_at(patch, TokenDataset, "__getitem__", 15)
        with pytest.raises(Interrupted):
            pretrain(stores[:2], tmp_path / "out", **arguments[pretrain])
    folder = stores[0].parent
    if move == "copy":
        moved = [shutil.copytree(store, tmp_path / f"{store.stem}_copy.zarr") for store in stores]
    elif move == "link":
        (tmp_path / "link").symlink_to(folder)
        moved = [tmp_path / "link" / store.name for store in stores]
    else:
        monkeypatch.chdir(folder)
        moved = [Path(store.name) for store in stores]
    others = arguments[pretrain] | {"validation": moved[2:]}
    model = pretrain(moved[:2], tmp_path / "out", **others)
    assert_same(model, tmp_path / "out", expected)
    paths = json.loads((tmp_path / "out" / "training.json").read_text())["paths"]
    assert paths["validation"] == [str(moved[2])]


def test_stopped_again_and_again(stores, arguments, uninterrupted, tmp_path, monkeypatch):
    expected, stops = uninterrupted(pretrain), 0
    while True:
        try:
            with monkeypatch.context() as patch:
                stop_at(patch, TokenDataset, "__getitem__", 7)
                model = pretrain(stores[:2], tmp_path / "out", **arguments[pretrain])
            break
        except Interrupted:
            stops += 1
    assert stops >= 5
    assert_same(model, tmp_path / "out", expected)


def test_resume_false_starts_over(stores, arguments, uninterrupted, tmp_path, monkeypatch):
    expected = uninterrupted(pretrain)
    other = arguments[pretrain] | {"config": dataclasses.replace(PRETRAIN, seed=1)}
    with monkeypatch.context() as patch:
        stop_at(patch, TokenDataset, "__getitem__", 15)
        with pytest.raises(Interrupted):
            pretrain(stores[:2], tmp_path / "out", **other)
    with pytest.raises(ValueError, match=r"other settings \(config\); .*resume=False"):
        pretrain(stores[:2], tmp_path / "out", **arguments[pretrain])
    model = pretrain(stores[:2], tmp_path / "out", resume=False, **arguments[pretrain])
    assert_same(model, tmp_path / "out", expected)


def test_another_gene_encoder_is_another_run(
    stores, arguments, encoder, vocabulary, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, PairDataset, "__getitem__", 15)
        with pytest.raises(Interrupted):
            align(stores[:2], tmp_path, **arguments[align])
    other = arguments[align] | {"gene_encoder": GeneEncoder(encoder.config, vocabulary)}
    with pytest.raises(ValueError, match=r"other settings \(gene_encoder\)"):
        align(stores[:2], tmp_path, **other)


@pytest.mark.parametrize(
    "free", [{"log_every": 7}, {"checkpoint_every": 3}, {"device": "cpu"}], ids=str
)
def test_how_often_it_logs_and_where_it_computes_may_change(
    free, stores, arguments, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, TokenDataset, "__getitem__", 15)
        with pytest.raises(Interrupted):
            pretrain(stores[:2], tmp_path, **arguments[pretrain])
    changed = arguments[pretrain] | {"config": dataclasses.replace(PRETRAIN, **free)}
    assert pretrain(stores[:2], tmp_path, **changed)


@pytest.mark.slow
def test_workers_that_read_ahead_change_nothing(stores, arguments, tmp_path):
    phases = (Phase(batch_size=20),)
    models = []
    for n_workers in (0, 2):
        config = dataclasses.replace(PRETRAIN, phases=phases, n_workers=n_workers)
        models.append(
            pretrain(
                stores[:2], tmp_path / str(n_workers), **arguments[pretrain] | {"config": config}
            )
        )
    expected = models[0].state_dict(), timeless(tmp_path / "0")
    assert_same(models[1], tmp_path / "2", expected)
