"""A run directory: what was asked, what happened, the best weights, and the state to resume from."""

import json
from pathlib import Path
from typing import Any

import torch

from stp.models.checkpoint import replace

SETTINGS, METRICS, STATE = "training.json", "metrics.jsonl", "resume.pt"


class Run:
    """Open a run directory, new or to be resumed.

    Parameters
    ----------
    path
        The folder.
    settings
        All that decides the result: resuming with other settings is refused.
    resume
        Go on where the folder's run stopped; otherwise start over.

    Raises
    ------
    ValueError
        The folder holds a run with other settings.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        if resume and (self.path / STATE).exists():
            self._check(json.loads((self.path / SETTINGS).read_text()), settings)
        else:
            for name in (STATE, METRICS):
                (self.path / name).unlink(missing_ok=True)
        replace(self.path / SETTINGS, lambda file: file.write_text(json.dumps(settings, indent=2)))
        self.state = self._load()
        self._forget_after(self.state["phase"], self.state["step"])

    def _check(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        different = sorted(key for key in old | new if old.get(key) != new.get(key))
        if different:
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(different)}); "
                "choose another folder, or pass resume=False to start over"
            )

    def _load(self) -> dict[str, Any]:
        if not (self.path / STATE).exists():
            return {"phase": 0, "step": 0, "best": None, "task": None, "optimizer": None}
        return torch.load(self.path / STATE, map_location="cpu", weights_only=True)

    def _forget_after(self, phase: int, step: int) -> None:
        """Drop lines of steps that will be taken again."""
        lines = [line for line in self.metrics() if (line["phase"], line["step"]) <= (phase, step)]
        replace(self.path / METRICS, lambda file: file.write_text("".join(json.dumps(line) + "\n" for line in lines)))

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line that was cut off is left out."""
        file = self.path / METRICS
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self, **line: Any) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def checkpoint(self, **state: Any) -> None:
        """Keep the state to resume from; the old one stays until the new one is whole."""
        self.state = state
        replace(self.path / STATE, lambda file: torch.save(state, file))

    def finish(self, phases: int) -> None:
        """Mark all phases done; the weights users get stand beside, so the state needs none."""
        self.checkpoint(phase=phases, step=0, best=None, task=None, optimizer=None)
