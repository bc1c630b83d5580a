import errno
import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
from tests.forks import Fork

from stp.train.engine.processes import Processes
from stp.train.engine.run_dir import Checkpoint, RunDir

ALONE = Processes(0, 1, torch.device("cpu"))

SETTINGS = {
    "stage": "align",
    "stores": ["a", "b"],
    "config": {"seed": 0, "phases": ({"epochs": 1},)},
}


def opened(folder, settings=SETTINGS, resume=True):
    with RunDir(folder, settings, resume=resume, processes=ALONE) as run:
        return run


def log_loss(run, phase, epoch, step):
    line = {"phase": phase, "epoch": epoch, "step": step, "split": "train", "loss": 1.0 / step}
    run.log(line)


def log_score(run, phase, epoch, step, score):
    line = {"phase": phase, "epoch": epoch, "step": step, "split": "validation", "score": score}
    run.log(line)


@pytest.fixture
def folder(tmp_path):
    """A run with a checkpoint at step 3 of phase 1, which validated at steps 3 and 5."""
    run = opened(tmp_path / "run")
    for phase, step in [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]:
        log_loss(run, phase, 0, step)
    log_score(run, 1, 0, 3, 0.5)
    weights = {"w": torch.arange(3.0)}
    optimizer = {"lr": 0.1}
    run.save_checkpoint(
        Checkpoint(phase=1, step=3, best_score=0.5, task=weights, optimizer=optimizer)
    )
    for step in (4, 5):
        log_loss(run, 1, 1, step)
    log_score(run, 1, 1, 5, 0.6)
    return tmp_path / "run"


def logged_steps(run):
    return [(line["phase"], line["step"], line["split"]) for line in run.metrics()]


LOGGED = [
    (0, 1, "train"),
    (0, 2, "train"),
    (1, 1, "train"),
    (1, 2, "train"),
    (1, 3, "train"),
    (1, 3, "validation"),
]


def test_resuming_restores_the_state_and_cuts_metrics_after_it(folder):
    run = opened(folder)
    checkpoint = run.checkpoint
    assert (checkpoint.phase, checkpoint.step, checkpoint.best_score) == (1, 3, 0.5)
    assert checkpoint.task["w"].tolist() == [0, 1, 2]
    assert logged_steps(run) == LOGGED


def test_a_last_line_that_was_cut_off_is_ignored(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": 1, "epoch": 1, "st')
    run = opened(folder)
    assert logged_steps(run) == LOGGED
    log_loss(run, 1, 1, 4)
    assert logged_steps(run) == [*LOGGED, (1, 4, "train")]
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
    with pytest.raises(
        ValueError, match=f"holds a run with other settings {named}; .*pass resume=False"
    ):
        opened(folder, SETTINGS | change)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_setting_that_is_gone_is_named(folder):
    with pytest.raises(ValueError, match=r"\(stores\)"):
        opened(folder, {name: value for name, value in SETTINGS.items() if name != "stores"})


@pytest.mark.parametrize(
    "settings", [SETTINGS, SETTINGS | {"stage": "pretrain"}], ids=["same", "other"]
)
def test_without_resume_it_starts_over(folder, settings):
    run = opened(folder, settings, resume=False)
    assert run.checkpoint == Checkpoint()
    assert run.metrics() == []
    assert json.loads((folder / "training.json").read_text())["stage"] == settings["stage"]
    assert not (folder / "resume.pt").exists()


def test_a_run_that_never_came_to_a_checkpoint_binds_to_nothing(tmp_path):
    log_loss(opened(tmp_path), 0, 0, 1)
    run = opened(tmp_path, SETTINGS | {"stage": "pretrain"})
    assert run.metrics() == []


def test_checkpoints_replace_each_other_and_leave_nothing_behind(folder):
    run = opened(folder)
    run.save_checkpoint(Checkpoint(phase=1, step=4, task={"w": torch.zeros(2)}))
    assert opened(folder).checkpoint.step == 4
    assert {file.name for file in folder.iterdir()} == {
        "training.json",
        "metrics.jsonl",
        "resume.pt",
        "resume.previous.pt",
    }


def test_a_finished_run_keeps_all_metrics_and_no_weights(folder):
    opened(folder).finish(2)
    run = opened(folder)
    assert (run.checkpoint.phase, run.checkpoint.task) == (2, None)
    assert logged_steps(run) == LOGGED


@pytest.mark.parametrize(
    "damage", [b"", b"PK\x03\x04 half of a checkpoint", b"no checkpoint at all"], ids=str
)
def test_the_last_good_checkpoint_is_found_when_the_newest_is_broken(folder, damage):
    opened(folder).save_checkpoint(Checkpoint(phase=1, step=4, task={"w": torch.zeros(2)}))
    (folder / "resume.pt").write_bytes(damage)
    with pytest.warns(
        UserWarning,
        match=r"resume\.pt is damaged, so the run continues from the checkpoint before it",
    ):
        assert opened(folder).checkpoint.step == 3
    (folder / "resume.pt").unlink()  # killed between two renames
    assert opened(folder).checkpoint.step == 3


def test_broken_checkpoints_alone_are_refused(folder):
    (folder / "resume.pt").write_bytes(b"")
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="cannot be resumed: .*pass resume=False"),
    ):
        opened(folder)


def test_a_second_run_in_the_folder_is_refused_while_the_first_lasts(folder):
    with RunDir(folder, SETTINGS, resume=True, processes=ALONE):
        with pytest.raises(BlockingIOError, match=r"another process .* is training in .*run"):
            opened(folder)
    opened(folder)
    with pytest.raises(ValueError, match="other settings"):
        opened(folder, {})
    opened(folder)


def test_what_a_killed_process_left_unfinished_is_removed(folder):
    (folder / ".resume.pt.4711").write_bytes(b"half")
    opened(folder)
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_folders_of_the_user_stay(folder):
    (folder / "scratch").mkdir()
    (folder / "scratch" / "notes").write_text("mine")
    opened(folder)
    with pytest.raises(ValueError, match="other settings"):
        opened(folder, {})
    assert (folder / "scratch" / "notes").read_text() == "mine"


def train_and_die(folder, pid_file):
    """End in the middle of a run, and leave a worker."""
    with RunDir(folder, {}, resume=True, processes=ALONE):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        pid_file.write_text(str(worker.pid))
        os._exit(9)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux alone")
def test_a_worker_that_outlives_its_trainer_does_not_keep_the_folder_locked(tmp_path):
    pid_file = tmp_path / "pid"
    trainer = Fork(train_and_die, tmp_path / "run", pid_file, messages=tmp_path / "messages")
    assert trainer.wait() == 9, trainer.messages()
    worker = int(pid_file.read_text())
    try:
        assert (tmp_path / "run" / "run.lock").exists()
        os.kill(worker, 0)  # it runs
        opened(tmp_path / "run", {})
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_without_flock_it_is_locked_and_warns_once(code, folder, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(UserWarning, match="has no flock") as warnings:
        for _ in range(2):
            with RunDir(folder, SETTINGS, resume=True, processes=ALONE):
                with pytest.raises(BlockingIOError, match="another process"):
                    opened(folder)
    assert len(warnings) == 1


def test_another_number_of_processes_goes_on_with_a_warning(folder):
    settings = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(settings | {"processes": 4}))
    with pytest.warns(UserWarning, match=r"processes: 4, and goes on with 1 .*differs slightly"):
        assert opened(folder).checkpoint.step == 3
    opened(folder)  # which records the new number, so that it does not warn again


def test_paths_are_recorded_and_may_be_others(folder):
    moved = SETTINGS | {"paths": {"stores": ["/scratch/größe_胃.zarr"]}}
    assert opened(folder, moved).checkpoint.step == 3
    assert json.loads((folder / "training.json").read_text())["paths"] == moved["paths"]


def test_a_run_of_another_version_is_refused(folder):
    with pytest.raises(ValueError, match=r"a run of another version of stp.*resume=False"):
        opened(folder, SETTINGS | {"run_version": 99})
    opened(folder, SETTINGS | {"run_version": 99}, resume=False)


def test_metrics_are_cut_at_the_checkpoint_even_if_steps_are_counted_anew(folder):
    run = opened(folder)
    log_loss(run, 1, 1, 2)  # as after a change of the number of processes: larger steps
    run.save_checkpoint(Checkpoint(phase=1, step=2, task={"w": torch.zeros(2)}))
    log_loss(run, 1, 1, 3)
    assert logged_steps(opened(folder)) == [*LOGGED, (1, 2, "train")]
