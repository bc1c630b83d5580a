"""Measures of an image: a digest of its pixels, and how sharp it is."""

import hashlib
from itertools import pairwise

import numpy as np

from stp.images.levels import Level
from stp.images.pyramid import ImagePyramid
from stp.images.tissue import is_stained

MIN_STAINED = 0.5  # share of the pixels of a patch on tissue
GRAY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)


def pixels_digest(level: Level) -> str:
    """Return the SHA-256 (hexadecimal) of the pixels of a level, a row of chunks at a time."""
    height, width = level.shape
    sha256 = hashlib.sha256(f"{height} {width}".encode())
    for top, bottom in pairwise(level.edges[0]):
        sha256.update(np.ascontiguousarray(level.read(top, bottom, 0, width)).data)
    return sha256.hexdigest()


def sharpness(
    image: ImagePyramid, centers: np.ndarray, *, size: int, um_per_px: float
) -> float | None:
    """Return how sharp an image is: the median over patches of the variance of the Laplacian.

    The Laplacian of a gray image (0 to 255) is large at edges, and blur takes edges away. It also
    depends on the scale and on the tissue, so it compares slides of one organ and one scale.
    Patches off the image or mostly on glass do not count.

    Parameters
    ----------
    image
        Image of the slide.
    centers
        Centers (n, 2) of patches as x, y in the coordinate system of the image.
    size
        Side of a patch in pixels.
    um_per_px
        µm per pixel of the patches.

    Returns
    -------
    The median, or None if no patch counts.
    """
    from scipy.ndimage import laplace

    is_inside = image.inside(centers, size=size, um_per_px=um_per_px)
    variances = []
    for patch in image.read(centers[is_inside], size=size, um_per_px=um_per_px):
        if is_stained(patch).mean() >= MIN_STAINED:
            edges = laplace(patch @ np.array(GRAY))
            variances.append(edges[1:-1, 1:-1].var())
    return float(np.median(variances)) if variances else None
