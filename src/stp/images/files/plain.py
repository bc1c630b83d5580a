"""JPEG and PNG files, which are decoded as a whole."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stp.images.files.arrays import FileArray

# A decoder paints what a truncated file lacks in gray, so the end of a file is checked.
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 65_536  # the last bytes of a file are among these


@dataclass
class PlainArray(FileArray):
    """A JPEG or PNG, which can only be decoded as a whole."""

    def __getitem__(self, key: Any) -> np.ndarray:
        return _decode(str(self.path))[key]


def open_plain(path: Path) -> PlainArray:
    """Return a JPEG or PNG as an array that is decoded when it is read."""
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
