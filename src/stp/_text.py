"""Names of files as text, on systems whose locale is not UTF-8, and errors as one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stp._urls import without_secrets


def readable(path: str | Path) -> str:
    """Return a path as text that every UTF-8 file can hold, for messages and files.

    A URL is returned without passwords and tokens. If the locale is not UTF-8, Python replaces
    bytes of a file name that it cannot decode with surrogates, which are no characters.
    """
    try:
        text = os.fsencode(path).decode("utf-8")
    except UnicodeError:
        text = str(path).encode("utf-8", "replace").decode("utf-8")
    return without_secrets(text)


def native(path: str) -> str:
    """Return a path that was read from a UTF-8 file as Python names it on this system.

    If the locale cannot encode its characters, the file has the bytes of UTF-8 as its name.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return os.fsdecode(path.encode("utf-8"))
    return path


def is_utf8(path: str | Path) -> bool:
    """Return whether libraries that accept only names in UTF-8 find the file of a path."""
    try:
        return os.fspath(path).encode("utf-8") == os.fsencode(path)
    except UnicodeError:
        return False


@contextmanager
def utf8_path(path: str | Path) -> Iterator[str]:
    """Yield the path of a file for a library that reads only names in UTF-8.

    That is the path itself, or one of the open file if Python decoded its name by another locale.
    """
    if is_utf8(path):
        yield os.fspath(path)
        return
    with Path(path).open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def text_of(error: BaseException) -> str:
    """Return the message of an error in one line; that of a KeyError without quotes around it."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())
