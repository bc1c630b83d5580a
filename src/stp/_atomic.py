"""Write files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(
    path: Path, write: Callable[[Path], Any], *, previous: Path | None = None
) -> None:
    """Write a temporary file and rename it to `path`, so that no reader sees half a file.

    Parameters
    ----------
    path
        The file.
    write
        Function that writes the content to the path of the temporary file.
    previous
        New name for the file that exists at `path`; by default it is overwritten.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8 that appears whole or not at all; lines end as they do in it."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", newline=""))
