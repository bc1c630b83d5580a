"""ImagePyramid: the single path from a picture to patches of true physical scale."""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from stp.images.coordinates import affine_of, inverse, linear_scale, only_system, um_system
from stp.images.files import open_file
from stp.images.levels import Level, element_levels, factor_between, open_array, placed
from stp.images.scale import resolve
from stp.images.windows import check_chunks, windows

__all__ = ["ImagePyramid"]

WHITE = 255
UPSAMPLING_LIMIT = (
    1.25  # the finest level may be this much coarser than asked for (method.md section 4)
)
NATIVE = 0.5  # a window that differs from the patch by less than this many pixels is a plain slice


@dataclass(frozen=True)
class PatchWindow:
    """The size and physical scale of square patches.

    Parameters
    ----------
    size
        Side of a patch in pixels.
    um_per_px
        µm per pixel of the patch.
    """

    size: int
    um_per_px: float


@dataclass(frozen=True)
class ImagePyramid:
    """A picture at one or several resolutions, with its physical scale and its place in a coordinate system.

    Pixel `i` covers the interval from `i` to `i + 1`; coordinates are x, y. Patches are cut along the axes of
    the picture, also where the coordinate system is turned against it.

    Parameters
    ----------
    levels
        Resolutions of the same picture, finest first.
    um_per_px
        um per pixel of the finest level.
    affine
        (3, 3) matrix from the coordinate system to pixels of the finest level.
    scale_source
        Where `um_per_px` was taken from.

    Examples
    --------
    >>> pyramid = stp.images.ImagePyramid.from_path("slide.tif", um_per_px=1.0)
    >>> pyramid.read([[500, 500], [900, 700]], size=56, um_per_px=2.0).shape
    (2, 56, 56, 3)
    """

    levels: tuple[Level, ...]
    um_per_px: float
    affine: np.ndarray = field(default_factory=lambda: np.eye(3))
    scale_source: str = "um_per_px"

    @classmethod
    def from_array(cls, array: Any, um_per_px: float) -> "ImagePyramid":
        """Make a pyramid of one level from an RGB array (y, x, 3) or (3, y, x); coordinates are its pixels."""
        return cls((open_array(array),), float(um_per_px))

    @classmethod
    def from_path(cls, path: str | Path, *, um_per_px: float | None = None) -> "ImagePyramid":
        """Open a TIFF, SVS, OME-TIFF, JPEG or PNG file lazily; coordinates are pixels of its finest level."""
        arrays, tagged = open_file(path)
        value, source = resolve({"um_per_px": um_per_px, "the file's metadata": tagged})
        return cls(placed(tuple(map(open_array, arrays))), value, scale_source=source)

    @classmethod
    def from_spatialdata(
        cls,
        sdata: Any,
        image_key: str,
        *,
        coordinate_system: str | None = None,
        um_per_px: float | None = None,
    ) -> "ImagePyramid":
        """Take an image element; coordinates are those of `coordinate_system` (default: um, or the only one).

        Raises
        ------
        KeyError
            No such image, or it is not in the coordinate system.
        ValueError
            Neither `um_per_px` nor a coordinate system `um` gives the scale, or they contradict each other.
        """
        from spatialdata.transformations import get_transformation

        if image_key not in sdata.images:
            raise KeyError(f"no image {image_key!r}; pass image_key= one of {sorted(sdata.images)}")
        element = sdata.images[image_key]
        to_systems = get_transformation(element, get_all=True)
        system = coordinate_system or only_system(to_systems)
        if system not in to_systems:
            raise KeyError(
                f"image {image_key!r} is not in {system!r}; pass coordinate_system= one of {sorted(to_systems)}"
            )
        to_pixels = inverse(affine_of(element, system), f"image {image_key!r} to {system!r}")
        um = um_system(to_systems)
        stated = linear_scale(affine_of(element, um)) if um else None
        value, source = resolve({"um_per_px": um_per_px, "the coordinate system um": stated})
        return cls(element_levels(element), value, to_pixels, source)

    def to_pixels(self, centers: np.ndarray) -> np.ndarray:
        """Map coordinates (n, 2) as x, y to pixels of the finest level."""
        return np.asarray(centers, dtype=float) @ self.affine[:2, :2].T + self.affine[:2, 2]

    def inside(self, centers: np.ndarray, *, size: int, um_per_px: float) -> np.ndarray:
        """Tell for each center whether its patch lies wholly inside the picture: (n,) bool."""
        half = size * um_per_px / self.um_per_px / 2
        corners, (height, width) = self.to_pixels(centers), self.levels[0].shape
        slack = NATIVE
        within = (corners - half >= -slack) & (corners + half <= np.array([width, height]) + slack)
        return within[:, 0] & within[:, 1]

    def read(
        self,
        centers: np.ndarray,
        *,
        size: int,
        um_per_px: float,
        allow_upsampling: bool = False,
        max_bytes: int | None = None,
    ) -> np.ndarray:
        """Cut square patches, white where they leave the picture.

        A patch at the scale of a level is the plain slice whose corner is nearest, the right or lower of two: bit
        for bit the picture, at most half a pixel beside the center. At another scale it is the antialiased (triangle
        filter) resize of the exact window, read from the coarsest level that is fine enough. Chunks and backing do
        not change a bit of it. Levels do, as far as their makers averaged and rounded: on H&E by about 1 of 255 on
        average where they are averages of the finest, more where they were compressed anew.

        Parameters
        ----------
        centers
            (n, 2) centers as x, y in the coordinate system.
        size
            Pixels per side.
        um_per_px
            Scale of the patches.
        allow_upsampling
            Accept a picture that is coarser than 1.25 times `um_per_px`.
        max_bytes
            Limit on pixels that are kept or decoded, patches not counted: by default 256 MiB, or what it takes to
            decode one chunk where that is more.

        Returns
        -------
        (n, size, size, 3) uint8, in the order of `centers`.

        Raises
        ------
        ValueError
            The picture is too coarse, a part of it is missing, a center is no number, or `max_bytes` is too little.
        """
        patches = np.empty((len(centers), size, size, 3), dtype=np.uint8)
        batches = self.stream(
            centers,
            PatchWindow(size, um_per_px),
            batch_size=64,
            allow_upsampling=allow_upsampling,
            max_bytes=max_bytes,
        )
        for rows, cut in batches:
            patches[rows] = cut
        return patches

    def stream(
        self,
        centers: np.ndarray,
        window: PatchWindow,
        *,
        batch_size: int,
        allow_upsampling: bool = False,
        max_bytes: int | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows of `centers` (m,) and their patches (m, size, size, 3), as :meth:`read` cuts them.

        Patches come in the order of the picture, each once, in batches of `batch_size` but for the last; each chunk
        of the picture is decoded once.
        """
        size = window.size
        self.check_scale(window.um_per_px, allow_upsampling)
        level, factor = self._level_for(window.um_per_px)
        side = size * window.um_per_px / (self.um_per_px * factor)
        corners = (self.to_pixels(_finite(centers)) - level.origin) / factor - side / 2
        if abs(side - size) < NATIVE:
            side, corners = size, np.floor(corners + 0.5)
        low, high = np.floor(corners).astype(int), np.ceil(corners + side).astype(int)
        rows: list[int] = []
        patches = _own_memory((batch_size, size, size, 3))
        for group, pixels, origin in windows(level, low, high, max_bytes):
            for row in group:
                patches[len(rows)] = _cut(pixels, corners[row] - origin, side, size)
                rows.append(row)
                if len(rows) == batch_size:
                    yield np.array(rows), patches
                    rows, patches = [], _own_memory(patches.shape)
        if rows:
            yield np.array(rows), patches[: len(rows)]

    def check_scale(self, um_per_px: float, allow_upsampling: bool = False) -> None:
        """Refuse a scale that is much finer than the picture."""
        if self.um_per_px > UPSAMPLING_LIMIT * um_per_px and not allow_upsampling:
            raise ValueError(
                f"the image has {self.um_per_px:.3g} um per pixel, patches of {um_per_px:.3g} are wanted: give the "
                "full-resolution slide (a hires or lowres picture is not one), ask for coarser patches, or pass "
                "allow_upsampling=True where they are read"
            )

    def check_chunks(self, centers: np.ndarray, um_per_px: float) -> None:
        """Refuse a picture that lacks a chunk under a center, in the level from which patches of a scale are cut."""
        level, factor = self._level_for(um_per_px)
        pixels = np.floor((self.to_pixels(_finite(centers)) - level.origin) / factor).astype(int)
        check_chunks(level, pixels, pixels + 1)

    def _level_for(self, um_per_px: float) -> tuple[Level, float]:
        """Return the coarsest level that needs no upsampling, and its factor to the finest level."""
        factors = [factor_between(self.levels[0].shape[0], level.shape[0]) for level in self.levels]
        fine_enough = [f for f in factors if f * self.um_per_px <= um_per_px * 1.001]
        factor = max(fine_enough, default=1.0)
        return self.levels[factors.index(factor)], factor


def _own_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Take memory that goes back to the system; glibc keeps, in each thread, twice the largest array it ever freed."""
    return np.frombuffer(
        mmap.mmap(-1, max(1, math.prod(shape))), np.uint8, math.prod(shape)
    ).reshape(shape)


def _finite(centers: np.ndarray) -> np.ndarray:
    centers = np.asarray(centers, dtype=float)
    if len(wrong := np.flatnonzero(~np.isfinite(centers).all(axis=1))):
        raise ValueError(
            f"{len(wrong)} spots have no finite coordinates, the first in row {wrong[0]}; leave them out"
        )
    return centers


def _cut(window: np.ndarray, corner: np.ndarray, side: float, size: int) -> np.ndarray:
    """Cut one patch from a window in memory, padded with white and resized where `side` is not `size`."""
    low = np.floor(corner).astype(int)
    high = np.ceil(corner + side).astype(int)
    tile = _padded(window, low, high)
    if side == size:
        return tile
    left, top = corner - low
    box = (left, top, left + side, top + side)
    return np.asarray(
        PIL.Image.fromarray(tile).resize((size, size), PIL.Image.Resampling.BILINEAR, box=box)
    )


def _padded(window: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    height, width = window.shape[:2]
    if min(low) >= 0 and high[0] <= width and high[1] <= height:
        return np.ascontiguousarray(window[low[1] : high[1], low[0] : high[0]])
    tile = np.full((high[1] - low[1], high[0] - low[0], 3), WHITE, dtype=np.uint8)
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, (width, height))
    if x0 < x1 and y0 < y1:
        tile[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = window[y0:y1, x0:x1]
    return tile
