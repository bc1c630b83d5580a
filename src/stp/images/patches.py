"""Square patches: their size and scale, and how they are cut from pixels in memory."""

import math
import mmap
from dataclasses import dataclass

import numpy as np
import PIL.Image

WHITE = 255


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


def empty_patches(n_patches: int, size: int) -> np.ndarray:
    """Return memory for patches (n, size, size, 3) that goes back to the system when it is freed.

    glibc keeps, in each thread, twice the largest array that it ever freed.
    """
    shape = (n_patches, size, size, 3)
    n_bytes = math.prod(shape)
    memory = mmap.mmap(-1, max(1, n_bytes))
    return np.frombuffer(memory, np.uint8, n_bytes).reshape(shape)


def cut_patch(pixels: np.ndarray, corner: np.ndarray, side: np.ndarray, size: int) -> np.ndarray:
    """Return one patch (size, size, 3).

    Parameters
    ----------
    pixels
        Part of an image (y, x, 3).
    corner
        Upper left corner of the patch as x, y in `pixels`; it may lie outside.
    side
        Sides of the patch in `pixels` along x and y; the patch is resized if one is not `size`.
    size
        Side of the returned patch in pixels.
    """
    low = np.floor(corner).astype(int)
    high = np.ceil(corner + side).astype(int)
    window = _cut_padded(pixels, low, high)
    if side[0] == size and side[1] == size:
        return window
    left, top = corner - low
    box = (left, top, left + side[0], top + side[1])
    picture = PIL.Image.fromarray(window)
    return np.asarray(picture.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box))


def _cut_padded(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
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
