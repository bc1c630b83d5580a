"""Image files as arrays that are opened when they are read: TIFF in tiles, JPEG and PNG whole."""

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TIFF_ENDINGS = {".tif", ".tiff", ".svs", ".btf", ".ndpi", ".scn"}
MAX_TAG_UM = 5.0  # a coarser resolution tag is that of a screen, not of a microscope
UM_PER_OME_UNIT = {"nm": 1e-3, "mm": 1e3}  # any other unit is taken for µm
UM_PER_TIFF_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimeter
# A decoder paints what a truncated file lacks in gray, so the end of a file is checked.
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 65_536  # the last bytes of a file are among these
BLANK = 255  # color of tiles that a scanner or converter left out, because they show only glass


@dataclass
class FileArray:
    """An array in a file that each process opens for itself; it pickles as path and shape."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]  # what is decoded as a whole
    opened: tuple[int, Any] | None = field(default=None, repr=False)  # by process id

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def _open(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> np.ndarray:
        # A forked process shares the position in a file that its parent opened, and would read
        # from the wrong place.
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
    """A JPEG or PNG, which can only be decoded as a whole."""

    def __getitem__(self, key: Any) -> np.ndarray:
        return _decode(str(self.path))[key]


def open_file(path: str | Path) -> tuple[list[FileArray], float | None]:
    """Open an image file lazily.

    Parameters
    ----------
    path
        TIFF, SVS, OME-TIFF, JPEG or PNG file.

    Returns
    -------
    The levels, finest first, and µm per pixel of the finest, or None if the file has no scale.

    Raises
    ------
    FileNotFoundError
        There is no file at `path`.
    ValueError
        The file is truncated or no image, or `path` is a URL.
    """
    if "://" in str(path):
        raise ValueError(f"{path} is a URL; download the image and give its path")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    if path.suffix.lower() in TIFF_ENDINGS:
        return _open_tiff(path)
    return [_open_plain(path)], None


def _open_tiff(path: Path) -> tuple[list[FileArray], float | None]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            _check_tiff(tiff)
            arrays: list[FileArray] = [
                _tiff_array(path, tiff, index) for index in range(len(tiff.series[0].levels))
            ]
            return arrays, _tagged_um(tiff)
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


def _tiff_array(path: Path, tiff: Any, index: int) -> TiffArray:
    import zarr

    array = zarr.open(tiff.series[0].aszarr(level=index), mode="r")
    return TiffArray(path, tuple(array.shape), array.dtype, tuple(array.chunks), level=index)


def _tagged_um(tiff: Any) -> float | None:
    """Return µm per pixel of a TIFF from the first of these that it has.

    OME metadata, Aperio's MPP, Aperio's magnification, resolution tags.
    """
    page = tiff.pages[0]
    if tiff.is_ome:
        size = re.search(r'PhysicalSizeX="([\d.eE+-]+)"', tiff.ome_metadata)
        if size:
            unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', tiff.ome_metadata)
            return float(size[1]) * UM_PER_OME_UNIT.get(unit[1] if unit else "", 1.0)
    mpp = re.search(r"\bMPP = ([\d.]+)", page.description)
    if mpp:
        return float(mpp[1])
    magnification = re.search(r"\bAppMag = ([\d.]+)", page.description)
    if magnification:
        return 10.0 / float(magnification[1])
    return _resolution_um(page)


def _resolution_um(page: Any) -> float | None:
    """Return µm per pixel from the resolution tags, or None if they are not of a microscope."""
    unit = page.tags.get("ResolutionUnit")
    resolution = page.tags.get("XResolution")
    if not unit or not resolution or int(unit.value) not in UM_PER_TIFF_UNIT:
        return None
    n_pixels, n_units = resolution.value
    if not n_pixels:
        return None
    um = UM_PER_TIFF_UNIT[int(unit.value)] * n_units / n_pixels
    return um if um <= MAX_TAG_UM else None


def _open_plain(path: Path) -> PlainArray:
    shape = (*_plain_shape(path), 3)
    return PlainArray(path, shape, np.dtype(np.uint8), shape)


def _plain_shape(path: Path) -> tuple[int, int]:
    """Return height and width of a JPEG or PNG, whose end is checked too."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                _check_end(path, LAST_BYTES.get(image.format or "", b""))
                width, height = image.size
                return height, width
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
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        if last_bytes not in file.read():
            raise ValueError(f"{path} ends before its pixels do; is the file complete?")


def _decode(path: str) -> np.ndarray:
    """Return the pixels (y, x, 3) of a JPEG or PNG; gray becomes RGB, and alpha is dropped."""
    import imagecodecs

    array = imagecodecs.imread(path)
    if array.dtype != np.uint8:
        raise ValueError(f"{path} has {array.dtype} pixels; convert it to 8 bits per channel first")
    if array.ndim == 2:
        array = array[..., None]
    is_gray = array.shape[-1] < 3
    return np.ascontiguousarray(array[..., [0, 0, 0]] if is_gray else array[..., :3])
