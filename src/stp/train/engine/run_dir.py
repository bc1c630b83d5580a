"""A run directory: what was asked, what happened, the best weights, and the state to resume from."""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from stp._atomic import write_atomically
from stp.train.config import LoopConfig
from stp.train.engine.processes import Processes
from stp.train.engine.signals import ignore_stop_signals

SETTINGS, METRICS, STATE, PREVIOUS, LOCK = (
    "training.json",
    "metrics.jsonl",
    "resume.pt",
    "resume.previous.pt",
    "run.lock",
)
SCRATCH = ".stp_scratch"  # a name that no folder of a user's has: what is in it is deleted
NEW = {"phase": 0, "step": 0, "best": None, "task": None, "optimizer": None}


class RunDir:
    """Open a run directory, new or to be resumed; a context, which no other process enters meanwhile.

    Parameters
    ----------
    path
        The folder.
    settings
        All that decides the result: resuming with other settings is refused.
    resume
        Go on where the folder's run stopped; otherwise start over.
    world
        The processes that train; only the one that leads writes.

    Raises
    ------
    ValueError
        The folder holds a run with other settings, or no checkpoint of it can be read.
    BlockingIOError
        Another process trains in this folder.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], *, resume: bool, world: Processes
    ) -> None:
        self.path, self.world = Path(path), world
        self._settings, self._resume = json.loads(json.dumps(settings)), resume
        self._lock = None

    def __enter__(self) -> Self:
        if self.world.is_main:
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
        """Leave stop requests and the lock to the trainer; called in a process that reads for it.

        A fork that outlives a killed trainer for a moment would else keep the folder locked.
        """
        ignore_stop_signals()
        if self._lock is not None:
            self._lock.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_lock": None}  # all that a worker needs where it is no fork

    @property
    def scratch(self) -> Path:
        """A folder for files of all processes, gone when the run is left."""
        return self.path / SCRATCH

    def on_main_process(self, prepare: Callable[[], None]) -> None:
        """Prepare something that all processes use, while they wait."""
        if self.world.is_main:
            prepare()
        self.world.wait()

    def _open(self) -> None:
        self.on_main_process(self._prepare)
        self.state = self._load()
        self.world.wait()
        if self.world.is_main:
            self._truncate_metrics(self.state["phase"], self.state["step"])

    def _prepare(self) -> None:
        if self._resume and any((self.path / name).exists() for name in (STATE, PREVIOUS)):
            self._check(json.loads((self.path / SETTINGS).read_text()), self._settings)
        else:
            for name in (STATE, PREVIOUS, METRICS):
                (self.path / name).unlink(missing_ok=True)
        for name in (STATE, METRICS, SETTINGS):
            for unfinished in self.path.glob(
                f".{name}.*"
            ):  # of a process that was killed while it wrote
                unfinished.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        write_atomically(
            self.path / SETTINGS, lambda file: file.write_text(json.dumps(self._settings, indent=2))
        )

    def _check(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        different = sorted(key for key in old | new if old.get(key) != new.get(key))
        if different:
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(different)}); "
                "choose another folder, or pass resume=False to start over"
            )

    def _load(self) -> dict[str, Any]:
        """Read the newest checkpoint that is whole."""
        broken = []
        for name in (STATE, PREVIOUS):
            if (self.path / name).exists():
                try:
                    return torch.load(self.path / name, map_location="cpu", weights_only=True)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the one before it may be whole
                    broken.append(f"{name} ({error})")
                    warnings.warn(
                        f"{self.path / name} is damaged; the checkpoint before it is taken",
                        stacklevel=3,
                    )
        if broken:
            raise ValueError(
                f"{self.path} cannot be resumed: {'; '.join(broken)}; pass resume=False to start over"
            )
        return dict(NEW)

    def _truncate_metrics(self, phase: int, step: int) -> None:
        """Drop lines of steps that will be taken again."""
        lines = [line for line in self.metrics() if (line["phase"], line["step"]) <= (phase, step)]
        write_atomically(
            self.path / METRICS,
            lambda file: file.write_text("".join(json.dumps(line) + "\n" for line in lines)),
        )

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line that was cut off is left out."""
        file = self.path / METRICS
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self, **line: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self.world.is_main:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def checkpoint(self, **state: Any) -> None:
        """Keep the state to resume from, and the one before it."""
        self.state = state
        if self.world.is_main:
            write_atomically(
                self.path / STATE,
                lambda file: torch.save(state, file),
                previous=self.path / PREVIOUS,
            )

    def finish(self, phases: int) -> None:
        """Mark all phases done; the weights users get stand beside, so the state needs none."""
        self.checkpoint(**{**NEW, "phase": phases})
        if self.world.is_main:
            (self.path / PREVIOUS).unlink(missing_ok=True)
        self.world.wait()


def _lock(path: Path):
    """Hold a lock on a file until it is closed, or its process ends however it ends; none where there are no locks."""
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


def settings(config: LoopConfig, world: Processes, **about: Any) -> dict[str, Any]:
    """Collect all that decides the result of a run; where it computes, reads sets and how often it logs does not."""
    free = ("device", "n_workers", "log_every", "checkpoint_every", "gene_sets")
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {**about, "config": values, "processes": world.size}
