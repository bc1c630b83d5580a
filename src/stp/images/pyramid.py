"""ImagePyramid: the only path from an image to patches of true physical scale."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stp.images.chunks import Boxes, require_chunks
from stp.images.coordinates import (
    affine_of,
    coordinate_systems,
    inverse,
    only_system,
    require_finite,
)
from stp.images.files.opening import open_file
from stp.images.level_places import level_factor, place_levels
from stp.images.levels import Level, open_array, open_element
from stp.images.patches import PatchWindow, empty_pixels, resample
from stp.images.scale import UM_SYSTEM, USER, resolve_scale, um_of_system
from stp.images.sources import open_pixels
from stp.images.windows import read_windows

__all__ = ["ImagePyramid"]

# The finest level may be this much coarser than the patches (method.md section 4).
UPSAMPLING_LIMIT = 1.25
# A window that differs from the patch by less than this is a plain slice.
NATIVE_PIXELS = 0.5


@dataclass(frozen=True)
class ImagePyramid:
    """An image at one or several resolutions, with its physical scale and a coordinate system.

    Pixel `i` covers the interval from `i` to `i + 1`; coordinates are x, y. Patches are cut along
    the axes of the image, even if the coordinate system is rotated against them.

    Parameters
    ----------
    levels
        Resolutions of the same image, finest first.
    um_per_px
        µm per pixel of the finest level.
    affine
        (3, 3) matrix from the coordinate system to pixels of the finest level.
    scale_source
        Name of the source of `um_per_px`.

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
        """Return a pyramid of one level from an RGB array; coordinates are its pixels.

        Parameters
        ----------
        array
            Pixels (y, x, 3) or (3, y, x), 8 bits per channel: a NumPy, Zarr or Dask array, a PIL
            image, or an xarray DataArray. A fourth channel is alpha; transparent pixels are white.
        um_per_px
            µm per pixel of the array.
        """
        return cls(open_pixels(array, "array"), float(um_per_px))

    @classmethod
    def from_path(cls, path: str | Path, *, um_per_px: float | None = None) -> "ImagePyramid":
        """Open an image file lazily; coordinates are pixels of its finest level.

        Parameters
        ----------
        path
            TIFF file, such as SVS, NDPI, SCN or OME-TIFF; JPEG or PNG file; or a slide that
            OpenSlide reads (Ventana BIF, MIRAX, VMS, DICOM). The content decides, not the name.
        um_per_px
            µm per pixel of the image at full resolution; by default it is resolved from the data,
            and sources that differ by more than 5 % are an error.
        """
        arrays, tagged_um = open_file(path)
        scale = resolve_scale({USER: um_per_px, "the file's metadata": tagged_um})
        levels = place_levels(tuple(open_array(array) for array in arrays))
        return cls(levels, scale.um_per_px, scale_source=scale.source)

    @classmethod
    def from_spatialdata(
        cls,
        sdata: Any,
        image_key: str,
        *,
        coordinate_system: str | None = None,
        um_per_px: float | None = None,
    ) -> "ImagePyramid":
        """Return the pyramid of an image of a SpatialData.

        Parameters
        ----------
        sdata
            SpatialData with the image.
        image_key
            Name of the image.
        coordinate_system
            Coordinate system of the centers at which patches are read; by default `um`, or the
            only one of the image.
        um_per_px
            µm per pixel of the image at full resolution; by default it is resolved from the data,
            and sources that differ by more than 5 % are an error.

        Raises
        ------
        KeyError
            There is no such image, or it is not in the coordinate system.
        ValueError
            Neither `um_per_px` nor a coordinate system `um` gives the scale, or the channels are
            not red, green and blue.
        """
        if image_key not in sdata.images:
            raise KeyError(f"no image {image_key!r}; pass image_key= one of {sorted(sdata.images)}")
        element = sdata.images[image_key]
        systems = coordinate_systems(element)
        system = coordinate_system or only_system(systems)
        if system not in systems:
            raise KeyError(
                f"image {image_key!r} is not in {system!r}; "
                f"pass coordinate_system= one of {sorted(systems)}"
            )
        to_pixels = inverse(affine_of(element, system), f"image {image_key!r} to {system!r}")
        scale = resolve_scale({USER: um_per_px, UM_SYSTEM: um_of_system(element)})
        levels = place_levels(open_element(element, image_key))
        return cls(levels, scale.um_per_px, to_pixels, scale.source)

    def to_pixels(self, centers: np.ndarray) -> np.ndarray:
        """Map coordinates (n, 2) as x, y to pixels of the finest level."""
        return np.asarray(centers, dtype=float) @ self.affine[:2, :2].T + self.affine[:2, 2]

    def inside(self, centers: np.ndarray, *, size: int, um_per_px: float) -> np.ndarray:
        """Return for each center whether its patch lies completely inside the image: (n,) bool.

        Parameters
        ----------
        centers
            Centers (n, 2) of the patches as x, y in the coordinate system.
        size
            Side of a patch in pixels.
        um_per_px
            µm per pixel of the patches.
        """
        half = size * um_per_px / self.um_per_px / 2
        pixels = self.to_pixels(centers)
        height, width = self.levels[0].shape
        begins_inside = pixels - half >= -NATIVE_PIXELS
        ends_inside = pixels + half <= np.array([width, height]) + NATIVE_PIXELS
        return np.asarray((begins_inside & ends_inside).all(axis=1))

    def read(
        self,
        centers: np.ndarray,
        *,
        size: int,
        um_per_px: float,
        allow_upsampling: bool = False,
        max_bytes: int | None = None,
    ) -> np.ndarray:
        """Return square patches around centers; they are white outside the image.

        A patch at the scale of a level is a plain slice, bit for bit the image. Its corner is the
        nearest one, the right or lower of two, so it is at most half a pixel off the center. At
        another scale the patch is the antialiased (triangle filter) resize of the exact window,
        read from the coarsest level that is fine enough.

        Chunks and file format do not change a patch. Levels do, as far as their makers averaged
        and rounded. On H&E this is about 1 of 255 on average if they are averages of the finest
        level, and more if they were compressed again.

        Parameters
        ----------
        centers
            Centers (n, 2) of the patches as x, y in the coordinate system.
        size
            Side of a patch in pixels.
        um_per_px
            µm per pixel of the patches.
        allow_upsampling
            Accept an image that is more than 1.25 times coarser than the patches.
        max_bytes
            Memory limit for pixels that are read ahead, without the patches; by default 256 MiB,
            or as much as decoding one chunk takes.

        Returns
        -------
        (n, size, size, 3) uint8, in the order of `centers`.

        Raises
        ------
        ValueError
            The image is too coarse, a part of it is missing, a center is not finite, or
            `max_bytes` is too little.
        """
        patches = np.empty((len(centers), size, size, 3), dtype=np.uint8)
        batches = self.stream(
            centers,
            PatchWindow(size, um_per_px),
            batch_size=64,
            allow_upsampling=allow_upsampling,
            max_bytes=max_bytes,
        )
        for rows, batch in batches:
            patches[rows] = batch
        return patches

    def stream(
        self,
        centers: np.ndarray,
        window: PatchWindow,
        *,
        batch_size: int,
        allow_upsampling: bool = False,
        max_bytes: int | None = None,
        first: int = 0,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows of `centers` (m,) and their patches (m, size, size, 3), cut as in `read`.

        Patches come by rows of chunks, from left to right in each. Each chunk is decoded once; if
        `max_bytes` is too little for the width of the image, some chunks are decoded twice.

        Parameters
        ----------
        centers
            Centers (n, 2) of the patches as x, y in the coordinate system.
        window
            Size and scale of the patches.
        batch_size
            Number of patches per batch; the last batch may have fewer.
        allow_upsampling
            Accept an image that is more than 1.25 times coarser than the patches.
        max_bytes
            Memory limit for pixels that are read ahead, without the patches; by default 256 MiB,
            or as much as decoding one chunk takes.
        first
            Number of patches, in this order, that are skipped without reading them.
        """
        size = window.size
        self.check_scale(window.um_per_px, allow_upsampling)
        level, factor = self._level_for(window.um_per_px)
        sides = size * window.um_per_px / (self.um_per_px * factor)
        corners = (self.to_pixels(require_finite(centers)) - level.origin) / factor - sides / 2
        is_native = bool((np.abs(sides - size) < NATIVE_PIXELS).all())
        if is_native:
            sides = np.array([size, size])
            corners = np.floor(corners + 0.5)
        boxes = Boxes(np.floor(corners).astype(int), np.ceil(corners + sides).astype(int))
        rows: list[int] = []
        patches = empty_pixels((batch_size, size, size, 3))
        for row, pixels in read_windows(level, boxes, max_bytes, first=first):
            if not is_native:
                pixels = resample(pixels, corners[row] - boxes.low[row], sides, size)
            patches[len(rows)] = pixels
            rows.append(row)
            if len(rows) == batch_size:
                yield np.array(rows), patches
                rows = []
                patches = empty_pixels((batch_size, size, size, 3))
        if rows:
            yield np.array(rows), patches[: len(rows)]

    def check_scale(self, um_per_px: float, allow_upsampling: bool = False) -> None:
        """Raise ValueError if patches of this scale are much finer than the image."""
        if self.um_per_px > UPSAMPLING_LIMIT * um_per_px and not allow_upsampling:
            finest = np.ceil(1000 * self.um_per_px / UPSAMPLING_LIMIT) / 1000
            raise ValueError(
                f"the image has {self.um_per_px:.3g} µm per pixel, patches of {um_per_px:.3g} are "
                "wanted: give the full-resolution slide (a hires or lowres picture is not one), "
                f"ask for patches of at least {finest:g} µm per pixel, "
                "or pass allow_upsampling=True to the function that reads them"
            )

    def check_chunks(self, centers: np.ndarray, um_per_px: float) -> None:
        """Raise ValueError if a chunk under a center is missing in the level for this scale."""
        level, factor = self._level_for(um_per_px)
        positions = (self.to_pixels(require_finite(centers)) - level.origin) / factor
        pixels = np.floor(positions).astype(int)
        require_chunks(level, Boxes(pixels, pixels + 1))

    def _level_for(self, um_per_px: float) -> tuple[Level, np.ndarray]:
        """Return the coarsest level that needs no upsampling, and its factors along x and y."""
        factors = np.array([level_factor(self.levels[0], level) for level in self.levels])
        is_fine_enough = factors.max(axis=1) * self.um_per_px <= um_per_px * 1.001
        number = int(np.where(is_fine_enough, factors.max(axis=1), 1.0).argmax())
        return self.levels[number], factors[number]
