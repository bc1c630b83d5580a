"""The image of a whole slide, or of the part of it that is drawn."""

from typing import NamedTuple

import numpy as np

from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid
from stp.images.slides import Slide

CropCoord = tuple[float, float, float, float]  # left, right, top, bottom
OVERVIEW_PIXELS = 1600  # longer side of the image


class Crop(NamedTuple):
    """A rectangle in the unit of the axes; y points down."""

    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def from_user(cls, crop_coord: CropCoord) -> "Crop":
        """Return the rectangle that a user passes; ValueError unless it has an area."""
        values = np.asarray(crop_coord, dtype=float)
        is_rectangle = values.shape == (4,) and np.isfinite(values).all()
        if not (is_rectangle and values[0] < values[1] and values[2] < values[3]):
            raise ValueError(
                f"crop_coord is {crop_coord!r}; pass (left, right, top, bottom) with left < right "
                "and top < bottom"
            )
        return cls(*map(float, values))

    def find_spots(self, xy: np.ndarray) -> np.ndarray:
        """Return which spots (n, 2) lie in the rectangle; ValueError if none does."""
        x, y = xy.T
        is_inside = (x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom)
        if not is_inside.any():
            low, high = xy.min(axis=0), xy.max(axis=0)
            raise ValueError(
                f"no spot lies in crop_coord={tuple(self)}; spots reach from x = {low[0]:.6g} to "
                f"{high[0]:.6g} and from y = {low[1]:.6g} to {high[1]:.6g}"
            )
        return is_inside

    def read_image(self, slide: Slide) -> tuple[np.ndarray, CropCoord]:
        """Return an image of a square around the rectangle, and its left, right, top and bottom."""
        pyramid = slide.pyramid
        side = max(self.right - self.left, self.bottom - self.top)
        um_per_px = max(pyramid.um_per_px, side / OVERVIEW_PIXELS)
        center = np.array([self.left + self.right, self.top + self.bottom]) / 2
        size = int(np.ceil(side / um_per_px))
        in_pixels = ImagePyramid(with_gaps(pyramid.levels), pyramid.um_per_px)
        image = in_pixels.read(
            center[None] / pyramid.um_per_px, size=size, um_per_px=um_per_px, allow_upsampling=True
        )[0]
        left, top = center - size * um_per_px / 2
        right, bottom = center + size * um_per_px / 2
        return image, (float(left), float(right), float(top), float(bottom))


def read_overview(slide: Slide) -> tuple[np.ndarray, float]:
    """Return a small image (y, x, 3) of the whole slide, and its µm per pixel."""
    height, width = slide.pyramid.levels[0].shape
    side = max(height, width)
    scale = side / OVERVIEW_PIXELS
    um_per_px = slide.pyramid.um_per_px * scale
    # A pyramid in pixels, where chunks of the image that were never written count as black.
    in_pixels = ImagePyramid(with_gaps(slide.pyramid.levels), slide.pyramid.um_per_px)
    square = in_pixels.read(
        np.array([[side / 2, side / 2]]),
        size=int(np.ceil(side / scale)),
        um_per_px=um_per_px,
        allow_upsampling=True,
    )[0]
    return square[: int(np.ceil(height / scale)), : int(np.ceil(width / scale))], um_per_px
