"""Image files as arrays that are opened where they are read: TIFF and its kin in tiles, JPEG and PNG whole."""

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TIFF_ENDINGS = {".tif", ".tiff", ".svs", ".btf", ".ndpi", ".scn"}
MAX_TAG_UM = 5.0  # a resolution tag coarser than this is a screen's, not a microscope's
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # a decoder paints what a cut file lacks in gray
BLANK = 255  # a tile that a scanner or converter left out, because it holds only glass
TAIL = 65_536  # bytes at the end of a file among which they stand


@dataclass
class FileArray:
    """An array in a file, opened anew in each process: it pickles as path and shape."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]  # what is decoded as a whole
    opened: tuple[int, Any] | None = field(default=None, repr=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def _open(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> np.ndarray:
        # A forked process shares the position in a file that its parent opened, and would read beside it.
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = (os.getpid(), self._open())
        return np.asarray(self.opened[1][key])


@dataclass
class TiffArray(FileArray):
    """One resolution of a TIFF."""

    level: int = 0

    def _open(self) -> Any:
        import tifffile
        import zarr

        series = tifffile.TiffFile(self.path).series[0]
        return zarr.open(series.aszarr(level=self.level, fillvalue=BLANK), mode="r")


@dataclass
class PlainArray(FileArray):
    """A JPEG or PNG, which decodes only as a whole."""

    def __getitem__(self, key: Any) -> np.ndarray:
        return _decode(str(self.path))[key]


def open_file(path: str | Path) -> tuple[list[FileArray], float | None]:
    """Open an image file lazily: its levels, finest first, and um per pixel of the finest where the file tells it."""
    if "://" in str(path):
        raise ValueError(f"{path} is a URL; download the image and give its path")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    return _open_tiff(path) if path.suffix.lower() in TIFF_ENDINGS else ([_open_plain(path)], None)


def _open_tiff(path: Path) -> tuple[list[FileArray], float | None]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if not len(tiff.pages):
                raise tifffile.TiffFileError("no picture in it")
            levels = tiff.series[0].levels
            if any(_end_of(level.keyframe) > tiff.filehandle.size for level in levels):
                raise tifffile.TiffFileError("it ends before its pixels do")
            if not all(any(level.keyframe.databytecounts) for level in levels):
                raise tifffile.TiffFileError("all tiles of a level are empty")
            return [_tiff_array(path, tiff, index) for index in range(len(levels))], _tagged_um(
                tiff
            )
    except tifffile.TiffFileError as error:
        raise ValueError(
            f"{path} cannot be read as a TIFF ({error}); is the file complete?"
        ) from error


def _tiff_array(path: Path, tiff: Any, index: int) -> TiffArray:
    import zarr

    array = zarr.open(tiff.series[0].aszarr(level=index), mode="r")
    return TiffArray(path, tuple(array.shape), array.dtype, tuple(array.chunks), level=index)


def _end_of(page: Any) -> int:
    """Return the position of the byte after the last pixel."""
    return max(
        (sum(place) for place in zip(page.dataoffsets, page.databytecounts, strict=False)),
        default=0,
    )


def _tagged_um(tiff: Any) -> float | None:
    """Read um per pixel from OME metadata, from Aperio's MPP or magnification, or from the resolution tags."""
    page = tiff.pages[0]
    if tiff.is_ome and (size := re.search(r'PhysicalSizeX="([\d.eE+-]+)"', tiff.ome_metadata)):
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', tiff.ome_metadata)
        return float(size[1]) * {"nm": 1e-3, "mm": 1e3}.get(unit[1] if unit else "", 1.0)
    if found := re.search(r"\bMPP = ([\d.]+)", page.description):
        return float(found[1])
    if found := re.search(r"\bAppMag = ([\d.]+)", page.description):
        return 10.0 / float(found[1])
    return _resolution_um(page)


def _resolution_um(page: Any) -> float | None:
    unit, resolution = page.tags.get("ResolutionUnit"), page.tags.get("XResolution")
    if not unit or not resolution or int(unit.value) not in (2, 3) or not resolution.value[0]:
        return None
    um = {2: 25_400.0, 3: 10_000.0}[int(unit.value)] * resolution.value[1] / resolution.value[0]
    return um if um <= MAX_TAG_UM else None


def _open_plain(path: Path) -> PlainArray:
    shape = (*_plain_shape(path), 3)
    return PlainArray(path, shape, np.dtype(np.uint8), shape)


def _plain_shape(path: Path) -> tuple[int, int]:
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                _check_end(path, LAST_BYTES.get(image.format or "", b""))
                return image.size[::-1]
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} is too large for a JPEG or PNG, which decode whole; make it a tiled TIFF"
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is no image that can be read; give a TIFF, SVS, JPEG or PNG file"
        ) from error


def _check_end(path: Path, last_bytes: bytes) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        if last_bytes not in file.read():
            raise ValueError(f"{path} ends before its pixels do; is the file complete?")


def _decode(path: str) -> np.ndarray:
    import imagecodecs

    array = imagecodecs.imread(path)
    if array.dtype != np.uint8:
        raise ValueError(f"{path} has {array.dtype} pixels; convert it to 8 bits per channel first")
    array = array[..., None] if array.ndim == 2 else array
    return np.ascontiguousarray(array[..., [0, 0, 0]] if array.shape[-1] < 3 else array[..., :3])
