"""Slides that OpenSlide reads: Ventana BIF, Trestle, MIRAX, VMS and DICOM."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stp._extras import import_extra
from stp.images.files.arrays import FileArray
from stp.images.files.colors import on_white
from stp.images.files.content import CONVERT
from stp.images.files.numbers import parse_number
from stp.images.files.scale_tags import square_um

CHUNK_PIXELS = 256  # smallest side of a chunk


@dataclass
class OpenSlideArray(FileArray):
    """One resolution of a slide that OpenSlide reads."""

    level: int = 0

    def _open(self) -> "OpenLevel":
        return OpenLevel(self.path, self.level)


class OpenLevel:
    """One resolution of an open slide; slices of it are arrays (y, x, channels)."""

    def __init__(self, path: Path, level: int) -> None:
        self.path = path
        self.slide = import_extra("openslide").OpenSlide(path)
        self.level = level
        self.downsample = self.slide.level_downsamples[level]
        width, height = self.slide.level_dimensions[level]
        self.shape = (height, width)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
        rows, columns, channels = key
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        height = max(bottom - top, 0)
        width = max(right - left, 0)
        if not height or not width:
            return np.empty((height, width, 3), dtype=np.uint8)[..., channels]
        # OpenSlide takes the corner in pixels of the finest level.
        corner = (round(left * self.downsample), round(top * self.downsample))
        try:
            picture = self.slide.read_region(corner, self.level, (width, height))
        except import_extra("openslide").OpenSlideError as error:
            raise ValueError(
                f"{self.path} has pixels that OpenSlide cannot read ({error}); are its files "
                "complete?"
            ) from error
        rgba = np.asarray(picture)
        # What was not scanned is transparent.
        return on_white(rgba[..., :3], rgba[..., 3])[..., channels]


def open_openslide(path: Path, kind: str) -> tuple[list[FileArray], float | None]:
    """Return the levels of a slide, finest first, and µm per pixel of the finest if it is stated.

    Parameters
    ----------
    path
        File of the slide that OpenSlide opens.
    kind
        What the file is, such as "a MIRAX slide".
    """
    try:
        openslide = import_extra("openslide")
    except ImportError as error:
        raise ImportError(
            f"{path} is {kind}, which OpenSlide reads: {error}, or {CONVERT}"
        ) from error
    try:
        with openslide.OpenSlide(path) as slide:
            if slide.properties.get("openslide.vendor") == "generic-tiff":
                raise openslide.OpenSlideUnsupportedFormatError("its tags are not complete")
            arrays = [_openslide_array(path, slide, level) for level in range(slide.level_count)]
            x, y = (parse_number(slide.properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
            return arrays, square_um(path, (x, y))
    except openslide.OpenSlideError as error:
        raise ValueError(
            f"{path} is {kind} that OpenSlide cannot read ({error}); copy all files of the slide, "
            f"or {CONVERT}"
        ) from error


def _openslide_array(path: Path, slide: Any, level: int) -> FileArray:
    width, height = slide.level_dimensions[level]
    chunks = (_chunk_side(slide, level, "height"), _chunk_side(slide, level, "width"), 3)
    return OpenSlideArray(path, (height, width, 3), np.dtype(np.uint8), chunks, level=level)


def _chunk_side(slide: Any, level: int, side: str) -> int:
    """Return a side of the chunks of a level: one tile, or several tiles if they are small."""
    tile = int(slide.properties.get(f"openslide.level[{level}].tile-{side}", CHUNK_PIXELS))
    return tile * -(-CHUNK_PIXELS // tile)
