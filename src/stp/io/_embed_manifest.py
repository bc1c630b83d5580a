"""The file to which each store or slide adds a line, in JSON lines."""

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._log import logger

if TYPE_CHECKING:
    from stp.io._embed_model import Model


class Manifest:
    """The file to which each store or slide adds a line.

    Parameters
    ----------
    path
        The file, in JSON lines.
    model
        The model that embeds the spots or tiles.
    rank
        Number of this process.

    Attributes
    ----------
    digest : str
        Digest of the model.
    n_failed : int
        Number of stores or slides of this process that failed.
    n_lost : int
        Number of lines that could not be written.
    """

    def __init__(self, path: Path, model: "Model", rank: int) -> None:
        self.path = path
        self.digest = model.digest
        self.n_failed = 0
        self.n_lost = 0
        self._model = {"name": model.name or type(model).__name__, "digest": self.digest}
        self._rank = rank

    def add(self, line: dict[str, Any]) -> None:
        """Add a line; if that fails, log it, so that the other stores go on."""
        line = {**line, "model": self._model, "process": self._rank}
        self.n_failed += line["status"] == "failed"
        try:
            _append_line(self.path, line)
        except OSError as error:
            logger.error(f"{self.path} was not written ({error}): {json.dumps(line)}")
            self.n_lost += 1


def _append_line(manifest: Path, line: dict[str, Any]) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    content = (json.dumps(line) + "\n").encode()
    file = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        n_written = os.write(file, content)
    finally:
        os.close(file)
    if n_written < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(manifest))
