import json

import pytest
import torch

from stp.train.run import Run

SETTINGS = {"stage": "align", "stores": ["a", "b"], "config": {"seed": 0, "phases": ({"epochs": 1},)}}


@pytest.fixture
def folder(tmp_path):
    """A run that logged steps 1 to 5, validated at 3 and 5, and kept its state at step 3 of phase 1."""
    run = Run(tmp_path / "run", SETTINGS, resume=True)
    for phase, step in [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]:
        run.log(phase=phase, epoch=0, step=step, split="train", loss=1.0 / step)
    run.log(phase=1, epoch=0, step=3, split="validation", score=0.5)
    run.checkpoint(phase=1, step=3, best=0.5, task={"w": torch.arange(3.0)}, optimizer={"lr": 0.1})
    for step in (4, 5):
        run.log(phase=1, epoch=1, step=step, split="train", loss=1.0 / step)
    run.log(phase=1, epoch=1, step=5, split="validation", score=0.6)
    return tmp_path / "run"


def taken(run):
    return [(line["phase"], line["step"], line["split"]) for line in run.metrics()]


KEPT = [(0, 1, "train"), (0, 2, "train"), (1, 1, "train"), (1, 2, "train"), (1, 3, "train"), (1, 3, "validation")]


def test_resuming_restores_the_state_and_cuts_metrics_after_it(folder):
    run = Run(folder, SETTINGS, resume=True)
    assert (run.state["phase"], run.state["step"], run.state["best"]) == (1, 3, 0.5)
    assert run.state["task"]["w"].tolist() == [0, 1, 2]
    assert taken(run) == KEPT


def test_a_last_line_that_was_cut_off_is_ignored(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": 1, "epoch": 1, "st')
    run = Run(folder, SETTINGS, resume=True)
    assert taken(run) == KEPT
    run.log(phase=1, epoch=1, step=4, split="train", loss=0.2)
    assert taken(run) == [*KEPT, (1, 4, "train")]
    assert all(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stage": "pretrain"}, r"\(stage\)"),
        ({"stores": ["a"], "config": {"seed": 1}}, r"\(config, stores\)"),
        ({"added": 1}, r"\(added\)"),
    ],
    ids=["stage", "two", "added"],
)
def test_other_settings_are_refused_and_named(folder, change, named):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match=f"holds a run with other settings {named}; .*pass resume=False"):
        Run(folder, SETTINGS | change, resume=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_setting_that_is_gone_is_named(folder):
    with pytest.raises(ValueError, match=r"\(stores\)"):
        Run(folder, {name: value for name, value in SETTINGS.items() if name != "stores"}, resume=True)


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS | {"stage": "pretrain"}], ids=["same", "other"])
def test_without_resume_it_starts_over(folder, settings):
    run = Run(folder, settings, resume=False)
    assert (run.state["phase"], run.state["step"], run.state["task"]) == (0, 0, None)
    assert run.metrics() == []
    assert json.loads((folder / "training.json").read_text())["stage"] == settings["stage"]
    assert not (folder / "resume.pt").exists()


def test_a_run_that_never_came_to_a_checkpoint_binds_to_nothing(tmp_path):
    Run(tmp_path, SETTINGS, resume=True).log(phase=0, epoch=0, step=1, split="train", loss=1.0)
    run = Run(tmp_path, SETTINGS | {"stage": "pretrain"}, resume=True)
    assert run.metrics() == []


def test_checkpoints_replace_each_other_and_leave_nothing_behind(folder):
    run = Run(folder, SETTINGS, resume=True)
    run.checkpoint(phase=1, step=4, best=None, task={"w": torch.zeros(2)}, optimizer=None)
    assert Run(folder, SETTINGS, resume=True).state["step"] == 4
    assert {file.name for file in folder.iterdir()} == {"training.json", "metrics.jsonl", "resume.pt"}


def test_a_finished_run_keeps_all_metrics_and_no_weights(folder):
    Run(folder, SETTINGS, resume=True).finish(2)
    run = Run(folder, SETTINGS, resume=True)
    assert (run.state["phase"], run.state["task"]) == (2, None)
    assert taken(run) == KEPT
