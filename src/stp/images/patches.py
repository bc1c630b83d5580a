"""Square patches: their size and scale, and how they are cut from pixels in memory."""

import math
import mmap
from dataclasses import dataclass

import numpy as np
import PIL.Image

WHITE = 255
LARGE_PAGE = 2 * 2**20  # bytes


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


def empty_pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Return memory for pixels that goes back to the system when it is freed.

    glibc would keep, in each thread, twice the largest array that it ever freed.
    """
    n_bytes = math.prod(shape)
    # macOS and Windows have no glibc, and what is smaller than a large page does not add up.
    if not hasattr(mmap, "MADV_HUGEPAGE") or n_bytes < LARGE_PAGE:
        return np.empty(shape, np.uint8)
    memory = mmap.mmap(-1, max(1, n_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)  # small pages take a third of the time to cut a patch
    return np.frombuffer(memory, np.uint8, n_bytes).reshape(shape)


def resample(pixels: np.ndarray, corner: np.ndarray, sides: np.ndarray, size: int) -> np.ndarray:
    """Return a patch (size, size, 3) from the rectangle of `pixels` with this corner and sides.

    Parameters
    ----------
    pixels
        Part of an image (y, x, 3).
    corner
        Upper left corner of the rectangle as x, y.
    sides
        Sides of the rectangle in `pixels` along x and y.
    size
        Side of the returned patch in pixels.
    """
    left, top = corner
    box = (left, top, left + sides[0], top + sides[1])
    picture = PIL.Image.fromarray(pixels)
    return np.asarray(picture.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box))


def cut_window(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the pixels between two corners, given as x, y; white outside the image."""
    height, width = pixels.shape[:2]
    if min(low) >= 0 and high[0] <= width and high[1] <= height:
        return np.ascontiguousarray(pixels[low[1] : high[1], low[0] : high[0]])
    window = np.full((high[1] - low[1], high[0] - low[0], 3), WHITE, dtype=np.uint8)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, (width, height))
    if x0 < x1 and y0 < y1:
        window[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = pixels[y0:y1, x0:x1]
    return window
