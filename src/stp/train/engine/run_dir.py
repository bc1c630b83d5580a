"""A run directory: the settings of a run, its metrics, and the checkpoint to resume from."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import torch

from stp._atomic import write_atomically
from stp._log import warn
from stp.train.engine.config import LoopConfig
from stp.train.engine.processes import Processes
from stp.train.engine.signals import ignore_stop_signals

SETTINGS = "training.json"
METRICS = "metrics.jsonl"
NEWEST = "resume.pt"
PREVIOUS = "resume.previous.pt"
LOCK = "run.lock"
SCRATCH = ".stp_scratch"  # its content is deleted, so no folder of a user may have this name
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
        If the folder has a run with other settings, or none of its checkpoints can be read.
    BlockingIOError
        If another process trains in this folder.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], *, resume: bool, processes: Processes
    ) -> None:
        self.path = Path(path)
        self.processes = processes
        self.checkpoint = Checkpoint()
        self._settings = json.loads(json.dumps(settings))
        self._resume = resume
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        if self.processes.is_main:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path / LOCK)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        if self._lock is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self._lock.close()

    def init_worker(self, worker: int) -> None:
        """Leave stop signals and the lock to the trainer; every worker process calls this first.

        Otherwise a worker that outlives its killed parent would keep the run directory locked.
        """
        ignore_stop_signals()
        if self._lock is not None:
            self._lock.close()

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is no fork needs only what `init_worker` reads.
        return {"_lock": None}

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
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if self.processes.is_main:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Save the state to resume from; the checkpoint before it is kept as a second file."""
        self.checkpoint = checkpoint
        if self.processes.is_main:
            write_atomically(
                self.path / NEWEST,
                lambda file: torch.save(vars(checkpoint), file),
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
        write_atomically(self.path / SETTINGS, lambda file: file.write_text(text))

    def _check_settings(self) -> None:
        """Raise ValueError if the run in the folder has other settings."""
        old = json.loads((self.path / SETTINGS).read_text())
        new = self._settings
        different = sorted(key for key in old | new if old.get(key) != new.get(key))
        if different:
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(different)}); "
                "choose another folder, or pass resume=False to start over"
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
        """Drop the lines of steps that will be taken again."""
        last = (self.checkpoint.phase, self.checkpoint.step)
        lines = [line for line in self.metrics() if (line["phase"], line["step"]) <= last]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(self.path / METRICS, lambda file: file.write_text(text))


def run_settings(
    config: LoopConfig, processes: Processes, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Collect all values that decide the result of a run.

    Left out are the device, how often a run logs, and where it reads gene sets from.

    Parameters
    ----------
    config
        Settings of the training.
    processes
        The processes that train.
    inputs
        The stage, its stores and the models that it starts from; JSON values.
    """
    values = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in FREE_SETTINGS
    }
    return {**inputs, "config": values, "processes": processes.size}


def _lock(path: Path) -> TextIO:
    """Lock a file until it is closed or its process ends; systems without locks skip this."""
    file = path.open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except BlockingIOError as error:
        file.close()
        raise BlockingIOError(
            f"another process trains in {path.parent}; wait for it, or choose another folder"
        ) from error
    return file
