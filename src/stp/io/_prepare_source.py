"""The files of a source, and digests by which a change of them is noticed."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from stp.io._manifest_columns import HEST, VISIUM, VISIUM_HD, XENIUM, ManifestRow
from stp.io._manifest_kind import hest_files

BLOCK_BYTES = 1 << 20


def source_digest(row: ManifestRow, out: Path | None) -> str:
    """Return a digest of paths, sizes and times of the files of a source.

    Parameters
    ----------
    row
        Row of a manifest.
    out
        Folder of the stores, whose files do not count; None if it is remote.
    """
    facts: list[object] = [str(row.path.absolute()), str(row.image and row.image.absolute())]
    for name, file in _list_files(row, out):
        status = file.stat()
        facts.append([name, status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def content_digest(row: ManifestRow, out: Path | None) -> str:
    """Return a digest of the content of all files of a source; it does not depend on its place.

    Parameters
    ----------
    row
        Row of a manifest.
    out
        Folder of the stores, whose files do not count; None if it is remote.
    """
    sha256 = hashlib.sha256()
    for name, file in _list_files(row, out):
        sha256.update(json.dumps([name, file.stat().st_size]).encode())
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                sha256.update(block)
    return sha256.hexdigest()


def _list_files(row: ManifestRow, out: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the files of a source with names that do not depend on its place."""
    if row.kind == HEST:
        for file in hest_files(row.path):
            yield file.name, file
        return
    yield from _walk("path", _place(row), out)
    if row.image is not None:
        yield from _walk("image", row.image, out)
        if row.kind == XENIUM:  # the alignment lies next to it
            for file in sorted(row.image.parent.glob("*.csv")):
                yield f"alignment/{file.name}", file


def _place(row: ManifestRow) -> Path:
    """Return the file or folder that is read: Space Ranger writes logs next to `outs`."""
    outs = row.path / "outs"
    return outs if row.kind in (VISIUM, VISIUM_HD) and outs.is_dir() else row.path


def _walk(name: str, place: Path, out: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the files below a place, in the order of their names."""
    if place.is_file():
        yield name, place
        return
    excluded = None if out is None else out.resolve()
    for folder, folders, files in os.walk(place, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(entry for entry in folders if (here / entry).resolve() != excluded)
        for entry in sorted(files):
            file = here / entry
            yield f"{name}/{file.relative_to(place).as_posix()}", file
