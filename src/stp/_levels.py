"""Open a picture as its levels: RGB arrays read window by window, whatever file or array they come from."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TIFF_ENDINGS = {".tif", ".tiff", ".svs", ".btf", ".ndpi", ".scn"}
MAX_TAG_UM = 5.0  # a resolution tag coarser than this is a screen's, not a microscope's
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # a decoder paints what a cut file lacks in gray
TAIL = 65_536  # bytes at the end of a file among which they stand


@dataclass(frozen=True)
class Level:
    """One resolution of a picture: an RGB or RGBA uint8 array (numpy, zarr or dask), y x c or c y x."""

    array: Any
    channels_first: bool = False

    def __post_init__(self) -> None:
        array, channels = self.array, self.array.shape[0 if self.channels_first else -1]
        if array.ndim != 3 or channels not in (3, 4):
            raise ValueError(f"expected an RGB image, got an array of shape {tuple(array.shape)}")
        if array.dtype != np.uint8:
            raise ValueError(f"expected 8 bits per channel, got {array.dtype}; convert the image to uint8 first")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.array.shape[1:] if self.channels_first else self.array.shape[:2])

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a window that lies inside the level: (bottom - top, right - left, 3) uint8."""
        if self.channels_first:
            return np.moveaxis(np.asarray(self.array[:3, top:bottom, left:right]), 0, -1)
        return np.asarray(self.array[top:bottom, left:right, :3])

    def in_memory(self) -> "Level":
        """Return the same level, read once and kept."""
        return Level(np.ascontiguousarray(self.read(0, self.shape[0], 0, self.shape[1])))


def open_array(array: Any) -> Level:
    """Wrap an array, telling y x c from c y x by where the three or four channels stand."""
    last = array.ndim == 3 and array.shape[-1] in (3, 4)
    return Level(array, channels_first=not last and array.ndim == 3 and array.shape[0] in (3, 4))


def open_file(path: str | Path) -> tuple[list[Level], float | None]:
    """Open an image file lazily: its levels, finest first, and um per pixel of the finest where the file tells it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    return _open_tiff(path) if path.suffix.lower() in TIFF_ENDINGS else ([_open_plain(path)], None)


def _open_tiff(path: Path) -> tuple[list[Level], float | None]:
    import tifffile
    import zarr

    try:
        with tifffile.TiffFile(path) as tiff:
            if not len(tiff.pages):
                raise tifffile.TiffFileError("no picture in it")
            series, page = tiff.series[0], tiff.pages[0]
            if any(_end_of(level.keyframe) > tiff.filehandle.size for level in series.levels):
                raise tifffile.TiffFileError("it ends before its pixels do")
            arrays = [zarr.open(series.aszarr(level=i), mode="r") for i in range(len(series.levels))]
            return [open_array(array) for array in arrays], _tagged_um(tiff, page)
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path} cannot be read as a TIFF ({error}); is the file complete?") from error


def _end_of(page: Any) -> int:
    """Return the position of the byte after the last pixel."""
    return max((sum(place) for place in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)


def _tagged_um(tiff: Any, page: Any) -> float | None:
    """Read um per pixel from OME metadata, from Aperio's MPP or magnification, or from the resolution tags."""
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


def _open_plain(path: Path) -> Level:
    """Open a JPEG or PNG, which decodes only as a whole: anew for each window, and not before the first."""
    import dask
    import dask.array

    height, width = _plain_shape(path)
    whole = dask.delayed(_decode, pure=True)(str(path))
    return Level(dask.array.from_delayed(whole, (height, width, 3), dtype=np.uint8))


def _plain_shape(path: Path) -> tuple[int, int]:
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                _check_end(path, LAST_BYTES.get(image.format, b""))
                return image.size[::-1]
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large for a JPEG or PNG, which decode whole; make it a tiled TIFF") from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that can be read; give a TIFF, SVS, JPEG or PNG file") from error


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
