"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(
    path: Path, write: Callable[[Path], Any], *, previous: Path | None = None
) -> None:
    """Write a file beside `path`, then put it in place at once; the file that was there becomes `previous`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        if previous is not None and path.exists():
            path.replace(previous)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
