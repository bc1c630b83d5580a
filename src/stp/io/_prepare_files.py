"""Small files that processes share while rows are prepared, by path or URL."""

import functools
from pathlib import Path

from stp._urls import as_url, join_url
from stp.io._upload_store import open_objects
from stp.remote.objects import ObjectFolder


def join(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder."""
    return str(Path(folder) / name) if as_url(folder) is None else join_url(folder, name)


def read_file(file: str) -> bytes:
    """Return the content of a file, or raise FileNotFoundError if there is none."""
    if as_url(file) is None:
        return Path(file).read_bytes()
    folder, name = _split(file)
    return folder.read(name)


def write_file(file: str, content: bytes) -> None:
    """Write a file into a folder that exists."""
    if as_url(file) is None:
        Path(file).write_bytes(content)
        return
    folder, name = _split(file)
    folder.write(name, content)


@functools.lru_cache(maxsize=8)
def objects_of(url: str) -> ObjectFolder:
    """Return the folder of a URL, which this process opens once."""
    return open_objects(url)


def _split(url: str) -> tuple[ObjectFolder, str]:
    folder, _, name = url.rpartition("/")
    return objects_of(folder), name
