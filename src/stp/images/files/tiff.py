"""TIFF files as arrays that decode single tiles."""

import struct
import weakref
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from stp.images.files.arrays import FileArray
from stp.images.files.content import CONVERT
from stp.images.files.openslide import open_openslide
from stp.images.files.scale_tags import tagged_um
from stp.images.files.series import choose_series, is_companion_page
from stp.images.files.tiff_colors import as_rgb
from stp.images.files.tiff_xml import picture_of_series, read_pictures

BLANK = 255  # color of tiles that a scanner or converter left out, because they show only glass
XMP = 700  # tag
NDPI_MAGIC = b"II*\0"
NDPI_TAG = 65420
VENTANA_XMP = b"<iScan"
VENTANA_PAGES = 4  # the XMP is in the first, which is the label
TRESTLE_SOFTWARE = "MedScan"
# What tifffile raises, apart from its own error, if tags or XML are damaged.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    ParseError,
    RuntimeError,
    TypeError,
    struct.error,
)


@dataclass
class TiffArray(FileArray):
    """One resolution of an image in a TIFF."""

    level: int = 0
    series: int = 0

    def _open(self) -> Any:
        import zarr

        tiff = _open_tifffile(self.path)
        weakref.finalize(self, tiff.close)  # not later than this array is gone
        series = tiff.series[self.series]
        return zarr.open(series.aszarr(level=self.level, fillvalue=BLANK), mode="r")


def open_tiff(path: Path) -> tuple[list[FileArray], float | None]:
    """Return the levels of a TIFF, finest first, and µm per pixel of the finest if it is stated."""
    import tifffile

    try:
        with _open_tifffile(path) as tiff:
            if not len(tiff.pages):
                raise tifffile.TiffFileError("it has no image")
            kind = _kind_of_overlap(tiff)
            if kind is None:
                return _open_series(path, tiff)
    except (tifffile.TiffFileError, *DAMAGE) as error:
        raise ValueError(
            f"{path} cannot be read as a TIFF ({error}); is the file complete?"
        ) from error
    return open_openslide(path, kind)


def _open_tifffile(path: Path) -> Any:
    """Open a TIFF; tifffile would take its ending for the sign of NDPI, this takes its content."""
    import tifffile

    return tifffile.TiffFile(path, is_ndpi=_is_ndpi(path))


def _is_ndpi(path: Path) -> bool:
    """Return whether a file is NDPI: a TIFF whose positions have 64 bits, with a tag of NDPI."""
    with path.open("rb") as file:
        magic, offset = struct.unpack("<4sQ", file.read(12).ljust(12, b"\0"))
        if magic != NDPI_MAGIC or offset >= path.stat().st_size:
            return False
        file.seek(offset)
        (n_tags,) = struct.unpack("<H", file.read(2).ljust(2, b"\0"))
        tags = file.read(12 * n_tags)
    codes = [struct.unpack_from("<H", tags, start)[0] for start in range(0, len(tags) - 1, 12)]
    return NDPI_TAG in codes


def _kind_of_overlap(tiff: Any) -> str | None:
    """Return the kind of a TIFF whose tiles overlap, which tifffile does not stitch, or None."""
    for page in islice(tiff.pages, VENTANA_PAGES):
        xmp = page.tags.valueof(XMP) or b""
        if VENTANA_XMP in (xmp.encode() if isinstance(xmp, str) else bytes(xmp)):
            return "a Ventana BIF slide"
    if tiff.pages.first.software.startswith(TRESTLE_SOFTWARE):
        return "a Trestle slide"
    return None


def _open_series(path: Path, tiff: Any) -> tuple[list[FileArray], float | None]:
    """Return the levels of the slide in a TIFF, and µm per pixel of the finest."""
    import tifffile

    pictures = read_pictures(path, tiff)
    try:
        n_series = len(tiff.series)
    except ValueError as error:
        raise tifffile.TiffFileError(f"its tags are damaged: {error}") from error
    if not n_series:
        raise tifffile.TiffFileError("it has no image")
    index = choose_series(path, tiff, pictures)
    numbers = _levels_of_slide(tiff.series[index])
    for number in numbers:
        _check_pages(path, tiff, tiff.series[index].levels[number])
    picture = picture_of_series(tiff, index, pictures)
    channels = picture.channels if picture else ()
    arrays = [
        as_rgb(_tiff_array(path, tiff, index, number), tiff.series[index], number, channels)
        for number in numbers
    ]
    return arrays, tagged_um(path, tiff, index, pictures)


def _levels_of_slide(series: Any) -> list[int]:
    """Return the numbers of the levels of a series that show the slide, not its label."""
    return [
        number
        for number, level in enumerate(series.levels)
        if number == 0 or not is_companion_page(level.keyframe)
    ]


def _check_pages(path: Path, tiff: Any, level: Any) -> None:
    """Raise an error if pixels of a level are missing, or lie in other files."""
    import tifffile

    if any(page is None or page.parent is not tiff for page in level.pages):
        raise ValueError(
            f"{path} has only a part of its image, the rest is in other files; {CONVERT}"
        )
    for page in level.pages:
        if _end_of(page) > tiff.filehandle.size:
            raise tifffile.TiffFileError("it ends before its pixels do")
    if not any(any(page.databytecounts) for page in level.pages):
        raise tifffile.TiffFileError("all tiles of a level are empty")


def _end_of(page: Any) -> int:
    """Return the position of the byte after the last pixel."""
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((offset + n_bytes for offset, n_bytes in segments), default=0)


def _tiff_array(path: Path, tiff: Any, series: int, level: int) -> TiffArray:
    import tifffile
    import zarr

    try:
        array = zarr.open(tiff.series[series].aszarr(level=level), mode="r")
    except ValueError as error:
        raise tifffile.TiffFileError(f"its tags are damaged: {error}") from error
    shape = tuple(array.shape)
    chunks = tuple(array.chunks)
    return TiffArray(path, shape, array.dtype, chunks, level=level, series=series)
