"""The log of preparing a collection: a line per row and call, and the measures of each store."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stp.io._manifest_columns import RESERVED
from stp.io._prepare_row import Outcome

FILE = "prepare.jsonl"


class PrepareLog:
    """The file `prepare.jsonl`, to which each call adds a line per row.

    Parameters
    ----------
    path
        The file.
    after_line
        Function that is called after each new line.

    Attributes
    ----------
    measures : dict
        Measured columns of each row, by its name, as the last line has them.
    paths : dict
        Path of the store of each row in the folder, by its name.
    """

    def __init__(self, path: Path, after_line: Callable[[], None] | None = None) -> None:
        self.path = path
        self._after_line = after_line
        self.measures: dict[str, dict[str, Any]] = {}
        self.paths: dict[str, str] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_text(encoding="utf-8", errors="replace")
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # of a call that was killed
            if isinstance(line, dict) and line.get("measures"):
                self.measures[line["name"]] = line["measures"]
            if isinstance(line, dict) and line.get("path"):
                self.paths[line["name"]] = line["path"]
        if content and not content.endswith("\n"):
            self._append("\n")

    def digest_of(self, name: str) -> str | None:
        """Return the digest of the store whose measures are known, or None.

        Lines of former versions of this package may lack measures.
        """
        measures = self.measures.get(name, {})
        return measures["digest"] if measures.keys() >= {*RESERVED} else None

    def add(self, outcome: Outcome) -> None:
        """Add a line, and keep the measures if the outcome has some."""
        if outcome.measures:
            self.measures[outcome.name] = outcome.measures
        if outcome.path:
            self.paths[outcome.name] = outcome.path
        line = dataclasses.asdict(outcome) | {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}
        if not outcome.measures:
            del line["measures"]
        self._append(json.dumps(line) + "\n")
        if self._after_line is not None:
            self._after_line()

    def _append(self, text: str) -> None:
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
