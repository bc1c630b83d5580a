"""A small image of a whole slide."""

from dataclasses import replace

import numpy as np

from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid


def read_overview(image: ImagePyramid, um_per_px: float) -> np.ndarray:
    """Return a small image (y, x, 3) of the whole slide; parts without pixels are black.

    Parameters
    ----------
    image
        Image of a slide.
    um_per_px
        µm per pixel of the small image.
    """
    height, width = (n * image.um_per_px for n in image.levels[0].shape)
    size = max(1, int(np.ceil(max(height, width) / um_per_px)))
    center = np.full((1, 2), size * um_per_px / 2 / image.um_per_px)
    in_pixels = replace(image, levels=with_gaps(image.levels), affine=np.eye(3))
    square = in_pixels.read(center, size=size, um_per_px=um_per_px, allow_upsampling=True)[0]
    n_rows, n_columns = (max(1, int(np.ceil(n / um_per_px))) for n in (height, width))
    return square[:n_rows, :n_columns]
