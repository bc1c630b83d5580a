"""The file of the slide whose tiles a SpatialData has: what is recorded of it, and its pixels."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stp._text import readable
from stp.images.pyramid import ImagePyramid


def file_record(path: str | Path) -> dict[str, Any]:
    """Return the path of a slide, its number of bytes and when it was changed."""
    files = [file.stat() for file in _list_files(Path(path))]
    return {
        "path": readable(Path(path).absolute()),
        "bytes": sum(status.st_size for status in files),
        "mtime_ns": max((status.st_mtime_ns for status in files), default=0),
    }


def _list_files(path: Path) -> Iterable[Path]:
    """Yield the files of a slide: one, those of a folder, or those next to a MIRAX file."""
    folder = path if path.is_dir() else path.with_suffix("")
    if path.is_file():
        yield path
    if path.is_dir() or (path.suffix.lower() == ".mrxs" and folder.is_dir()):
        yield from (file for file in folder.rglob("*") if file.is_file())


def open_source_slide(
    record: Mapping[str, Any], image: str | Path | None, um_per_px: float
) -> ImagePyramid:
    """Open the slide that a record of tiles names, if it has not changed since.

    Parameters
    ----------
    record
        Record of the slide, `attrs["stp_slide"]`.
    image
        Path of the slide, if it is not where the record says.
    um_per_px
        µm per pixel of the slide at full resolution.

    Raises
    ------
    FileNotFoundError
        There is no slide at the path.
    ValueError
        The file is another one than that of the record, or the record names no slide.
    """
    # Features of other tools are read from files that do not name the slide.
    names_slide = "min_tissue" in record
    if image is None and not names_slide:
        raise ValueError(
            f"{record['path']} has features of tiles and does not name their slide; pass image= "
            "the path of the slide"
        )
    path = Path(record["path"] if image is None else image)
    if not path.exists():
        remedy = "if it moved, pass image= its path" if image is None else "check image="
        raise FileNotFoundError(f"there is no slide at {path}; {remedy}")
    if names_slide:
        _require_unchanged(path, record, is_moved=image is not None)
    return ImagePyramid.from_path(path, um_per_px=um_per_px)


def _require_unchanged(path: Path, record: Mapping[str, Any], *, is_moved: bool) -> None:
    """Raise ValueError if a file is not the slide that was tiled; a copy may have another time."""
    current = file_record(path)
    if current["bytes"] != record["bytes"]:
        raise ValueError(
            f"{path} has {current['bytes']:,} bytes, and the slide of these tiles had "
            f"{record['bytes']:,}; pass image= the path of that slide, or tile this one again"
        )
    if current["mtime_ns"] != record["mtime_ns"] and not is_moved:
        raise ValueError(
            f"{path} was changed after its tiles were laid; tile it again, or pass it as image= if "
            "it is a copy of the same slide"
        )
