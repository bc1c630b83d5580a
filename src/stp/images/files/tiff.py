"""TIFF files as arrays that decode single tiles."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp.images.files.arrays import FileArray
from stp.images.files.scale_tags import tagged_um
from stp.images.files.tiff_colors import as_rgb

BLANK = 255  # color of tiles that a scanner or converter left out, because they show only glass


@dataclass
class TiffArray(FileArray):
    """One resolution of a TIFF."""

    level: int = 0

    def _open(self) -> Any:
        import tifffile
        import zarr

        series = tifffile.TiffFile(self.path).series[0]
        return zarr.open(series.aszarr(level=self.level, fillvalue=BLANK), mode="r")


def open_tiff(path: Path) -> tuple[list[FileArray], float | None]:
    """Return the levels of a TIFF, finest first, and µm per pixel of the finest if it is known."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            _check_tiff(tiff)
            arrays: list[FileArray] = [
                _tiff_array(path, tiff, index) for index in range(len(tiff.series[0].levels))
            ]
            return arrays, tagged_um(tiff)
    except tifffile.TiffFileError as error:
        raise ValueError(
            f"{path} cannot be read as a TIFF ({error}); is the file complete?"
        ) from error


def _check_tiff(tiff: Any) -> None:
    """Raise TiffFileError if a TIFF has no image, or lacks pixels of a level."""
    import tifffile

    if not len(tiff.pages):
        raise tifffile.TiffFileError("it has no image")
    for level in tiff.series[0].levels:
        if _end_of(level.keyframe) > tiff.filehandle.size:
            raise tifffile.TiffFileError("it ends before its pixels do")
    for level in tiff.series[0].levels:
        if not any(level.keyframe.databytecounts):
            raise tifffile.TiffFileError("all tiles of a level are empty")


def _end_of(page: Any) -> int:
    """Return the position of the byte after the last pixel."""
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((offset + n_bytes for offset, n_bytes in segments), default=0)


def _tiff_array(path: Path, tiff: Any, index: int) -> Any:
    import zarr

    array = zarr.open(tiff.series[0].aszarr(level=index), mode="r")
    stored = TiffArray(path, tuple(array.shape), array.dtype, tuple(array.chunks), level=index)
    return as_rgb(stored, tiff.series[0], index)
