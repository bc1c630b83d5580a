"""A run directory: the settings of a run, its metrics, and the checkpoint to resume from."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from stp._atomic import write_atomically
from stp._lock import lock
from stp._log import warn
from stp._urls import shown_if_remote
from stp.train.engine.config import LoopConfig
from stp.train.engine.processes import Processes

SETTINGS = "training.json"
METRICS = "metrics.jsonl"
NEWEST = "resume.pt"
PREVIOUS = "resume.previous.pt"
LOCK = "run.lock"
SCRATCH = ".stp_scratch"  # its content is deleted, so no folder of a user may have this name
RUN_VERSION = 2  # 1 identified stores by their paths
INFORMATION = ("processes", "paths", "collections")  # of training.json; a run may go on with others
# Settings that runs of before lack, with the value that such a run has.
LATER_SETTINGS = {"radius_um": None}
FREE_SETTINGS = ("device", "n_workers", "log_every", "checkpoint_every", "gene_sets")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run between two steps.

    Parameters
    ----------
    phase
        Number of the phase that is trained next, from 0.
    step
        Number of steps of this phase that were taken.
    epoch
        Number of epochs of this phase that are complete.
    n_spots
        Number of spots of the epoch after these that were read, by all processes together.
    n_metric_bytes
        Size of metrics.jsonl; `RunDir.save_checkpoint` sets it.
    best_score
        Best validation score of this phase; None before the first validation.
    epochs_since_best
        Number of epochs since the best validation score.
    task
        Weights of the task; None before the first step and after the last phase.
    optimizer
        State of the optimizer; None at the start of a phase.
    """

    phase: int = 0
    step: int = 0
    epoch: int = 0
    n_spots: int = 0
    n_metric_bytes: int = 0
    best_score: float | None = None
    epochs_since_best: int = 0
    task: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None


class RunDir:
    """A run directory, new or to be resumed. Enter it as a context to lock it for this run.

    Parameters
    ----------
    path
        The folder.
    settings
        All values that decide the result; a run resumes only with the settings it started with.
        "paths" and "collections" may be others: they are recorded for information.
    resume
        Continue the run in the folder if there is one; with False, start over.
    processes
        The processes that train; only the main one writes files.

    Attributes
    ----------
    checkpoint : Checkpoint
        The newest checkpoint, once the run directory is entered.

    Raises
    ------
    ValueError
        If the folder has a run with other settings or of another version, or none of its
        checkpoints can be read.
    BlockingIOError
        If another process trains in this folder.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], *, resume: bool, processes: Processes
    ) -> None:
        remote = shown_if_remote(path)
        if remote is not None:
            raise ValueError(
                f"output_dir {remote} is remote, and runs are written on local disks only; give a "
                "local folder"
            )
        self.path = Path(path)
        self.processes = processes
        self.checkpoint = Checkpoint()
        self._settings = json.loads(json.dumps({**settings, "processes": processes.size}))
        self._resume = resume
        self._processes_before = processes.size
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        if self.processes.is_main:
            self.path.mkdir(parents=True, exist_ok=True)
            run_lock = lock(self.path, "training in", wait=False, file=self.path / LOCK)
            self._cleanup.enter_context(run_lock)
            self._cleanup.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._cleanup.close()

    @property
    def scratch(self) -> Path:
        """A folder for files of all processes, which is deleted when the run ends."""
        return self.path / SCRATCH

    def on_main_process(self, prepare: Callable[[], None]) -> None:
        """Call a function on the main process while the others wait."""
        if self.processes.is_main:
            prepare()
        self.processes.wait()

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl without a last line that was cut off."""
        file = self.path / METRICS
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = text.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if self.processes.is_main:
            with (self.path / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save the state to resume from; the checkpoint before it is kept as a second file."""
        metrics = self.path / METRICS
        n_metric_bytes = metrics.stat().st_size if metrics.exists() else 0
        self.checkpoint = dataclasses.replace(checkpoint, n_metric_bytes=n_metric_bytes)
        if self.processes.is_main:
            write_atomically(
                self.path / NEWEST,
                lambda file: torch.save(vars(self.checkpoint), file),
                previous=self.path / PREVIOUS,
            )

    def finish(self, n_phases: int) -> None:
        """Record that all phases are complete.

        The checkpoint then needs no weights, because the folder has those of the best epoch.
        """
        self.save_checkpoint(Checkpoint(phase=n_phases))
        if self.processes.is_main:
            (self.path / PREVIOUS).unlink(missing_ok=True)
        self.processes.wait()

    def _open(self) -> None:
        self.on_main_process(self._prepare)
        self.checkpoint = self._load()
        self.processes.wait()
        if self.processes.is_main:
            self._truncate_metrics()
            self._warn_if_processes_differ()

    def _prepare(self) -> None:
        """Check that the run may be resumed, or delete it; then write the settings."""
        has_checkpoint = any((self.path / name).exists() for name in (NEWEST, PREVIOUS))
        if self._resume and has_checkpoint:
            self._check_settings()
        else:
            for name in (NEWEST, PREVIOUS, METRICS):
                (self.path / name).unlink(missing_ok=True)
        # A process that was killed while it wrote leaves unfinished files.
        for name in (NEWEST, METRICS, SETTINGS):
            for unfinished in self.path.glob(f".{name}.*"):
                unfinished.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        text = json.dumps(self._settings, indent=2)
        write_atomically(self.path / SETTINGS, lambda file: file.write_text(text, encoding="utf-8"))

    def _check_settings(self) -> None:
        """Raise ValueError if the run in the folder has other settings."""
        old = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        new = self._settings
        if old.get("run_version") != new.get("run_version"):
            raise ValueError(
                f"{self.path} holds a run of another version of stp; finish it with that version, "
                "choose another folder, or pass resume=False to start over"
            )
        names = (old | new).keys() - set(INFORMATION)
        different = sorted(name for name in names if old.get(name) != new.get(name))
        if different:
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(different)}); "
                "choose another folder, or pass resume=False to start over"
            )
        self._processes_before = old["processes"]

    def _warn_if_processes_differ(self) -> None:
        is_begun = self.checkpoint.task is not None  # and not finished
        if is_begun and self._processes_before != self.processes.size:
            warn(
                f"{self.path} was trained with processes: {self._processes_before}, and goes on "
                f"with {self.processes.size} at the same place in its data; batch_size counts per "
                "process, so batches (and the negatives of alignment) have another number of "
                "spots, and the result differs slightly"
            )

    def _load(self) -> Checkpoint:
        """Read the newest checkpoint that is intact."""
        failures = []
        for name in (NEWEST, PREVIOUS):
            file = self.path / name
            if not file.exists():
                continue
            try:
                return Checkpoint(**torch.load(file, map_location="cpu", weights_only=True))
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the one before may be intact
                failures.append(f"{name} ({error})")
                warn(f"{file} is damaged, so the run continues from the checkpoint before it")
        if failures:
            raise ValueError(
                f"{self.path} cannot be resumed: {'; '.join(failures)}; "
                "pass resume=False to start over"
            )
        return Checkpoint()

    def _truncate_metrics(self) -> None:
        """Drop the lines of steps that will be taken again, and a last line that was cut off."""
        file = self.path / METRICS
        logged = file.read_bytes()[: self.checkpoint.n_metric_bytes] if file.exists() else b""
        lines = logged[: logged.rfind(b"\n") + 1]
        write_atomically(file, lambda file: file.write_bytes(lines))


def run_settings(config: LoopConfig, inputs: dict[str, Any]) -> dict[str, Any]:
    """Collect all values that decide the result of a run.

    Left out are the device, how often a run logs, and where it reads gene sets from.

    Parameters
    ----------
    config
        Settings of the training.
    inputs
        The stage, its stores and the models that it starts from; JSON values.
    """
    values = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in FREE_SETTINGS and not _is_as_before(name, value)
    }
    return {"run_version": RUN_VERSION, **inputs, "config": values}


def _is_as_before(name: str, value: Any) -> bool:
    """Return whether a setting that older runs lack has the value that such a run has."""
    return name in LATER_SETTINGS and value == LATER_SETTINGS[name]
