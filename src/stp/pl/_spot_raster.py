"""Many spots as an image, in which each pixel has the color of the nearest spot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MAX_SPOTS = 50_000  # more spots are drawn as an image
# Of the distance to the next spot: a square of a lattice is covered up to its corners.
RADIUS_SHARE = 0.71
MAX_PIXELS = 1600  # longer side of the image
PIXELS_PER_RADIUS = 4  # at most
BLOCK_PIXELS = 262_144  # whose nearest spots are searched at a time


@dataclass(frozen=True)
class SpotRaster:
    """The spot under each pixel of an image.

    Spots on a square lattice become squares. A pixel that is farther than the radius from all spots
    shows none.

    Parameters
    ----------
    rows
        Position of the spot (height, width) of each pixel; -1 for none.
    extent
        Left, right, bottom and top of the image, in the unit of the spots; y points down.
    """

    rows: np.ndarray
    extent: tuple[float, float, float, float]

    @classmethod
    def from_spots(
        cls, xy: np.ndarray, radius: float, *, max_pixels: int = MAX_PIXELS
    ) -> "SpotRaster":
        """Find the spot under each pixel.

        Parameters
        ----------
        xy
            Spot centers (n, 2).
        radius
            Largest distance of a pixel to its spot.
        max_pixels
            Longer side of the image in pixels.
        """
        from scipy.spatial import cKDTree

        low = xy.min(axis=0) - radius
        extent = xy.max(axis=0) + radius - low
        pixel = max(extent.max() / max_pixels, radius / PIXELS_PER_RADIUS)
        width, height = np.ceil(extent / pixel).astype(int)
        tree = cKDTree(xy)
        rows = np.empty((height, width), dtype=np.int32)
        x = low[0] + (np.arange(width) + 0.5) * pixel
        n_lines = max(1, BLOCK_PIXELS // width)
        for top in range(0, height, n_lines):
            y = low[1] + (np.arange(top, min(top + n_lines, height)) + 0.5) * pixel
            centers = np.stack(np.meshgrid(x, y), axis=-1)
            _, nearest = tree.query(centers, distance_upper_bound=radius)
            rows[top : top + n_lines] = np.where(nearest == len(xy), -1, nearest)
        right, bottom = low + np.array([width, height]) * pixel
        return cls(rows, (float(low[0]), float(right), float(bottom), float(low[1])))

    def draw_numbers(self, ax: "Axes", numbers: np.ndarray) -> "AxesImage":
        """Draw the numbers (n,) of the spots; spots with NaN are left out."""
        pixels = np.where(self.rows < 0, np.nan, numbers[self.rows])
        return ax.imshow(np.ma.masked_invalid(pixels), extent=self.extent)

    def draw_colors(self, ax: "Axes", codes: np.ndarray, colors: Sequence[str]) -> "AxesImage":
        """Draw the colors that spots have by their codes (n,); spots with -1 are left out."""
        from matplotlib.colors import to_rgba_array

        palette = np.round(255 * to_rgba_array([*colors, "none"])).astype(np.uint8)
        pixel_codes = np.where(self.rows < 0, -1, codes[self.rows])
        return ax.imshow(palette[pixel_codes], extent=self.extent)
