"""Check that the spots of a slide lie on its image."""

from collections.abc import Mapping

import numpy as np

from stp._log import warn

REFUSE_BELOW = 0.5  # share of spot centers on the image
WARN_BELOW = 0.95
SIZE_TOLERANCE = 0.02  # the size is known from a reduced picture, whose sides are whole pixels
# A scale factor explains misplaced spots only if it spreads them over this share of the image.
MIN_EXTENT = 0.3


def share_on_image(pixels: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the share of places (n, 2), as x and y in pixels, on an image (height, width)."""
    height, width = shape
    is_inside = (pixels >= 0) & (pixels <= (width, height))
    return float(is_inside.all(axis=1).mean()) if len(pixels) else 1.0


def check_spots_on_image(
    pixels: np.ndarray,
    shape: tuple[int, int],
    image_name: str,
    scale_factors: Mapping[str, float] | None = None,
) -> None:
    """Raise ValueError if less than half of the spots lie on the image; warn below 95 %.

    Parameters
    ----------
    pixels
        Spot centers (n, 2) as x and y in pixels of the image.
    shape
        Height and width of the image in pixels.
    image_name
        What the message calls the image.
    scale_factors
        Factors of 10x by name, such as `tissue_hires_scalef`. The message names a factor if it
        explains why the spots are not on the image.
    """
    share = share_on_image(pixels, shape)
    if share >= WARN_BELOW:
        return
    height, width = shape
    fact = (
        f"only {share:.0%} of {len(pixels)} spot centers lie on {image_name} "
        f"({width} x {height} px)"
    )
    explanation = _explain(pixels, shape, scale_factors or {})
    if share >= REFUSE_BELOW:
        warn(f"{fact}; {explanation}. Look at it with stp.pl.patches(sdata)")
        return
    raise ValueError(f"{fact}; {explanation}")


def check_image_size(
    shape: tuple[int, int], expected: tuple[float, float], image_name: str
) -> None:
    """Raise ValueError if an image is not as large as the one on which the spots were placed.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    expected
        Height and width that it must have.
    image_name
        What the message calls the image.
    """
    if np.allclose(shape, expected, rtol=SIZE_TOLERANCE):
        return
    height, width = shape
    expected_height, expected_width = expected
    raise ValueError(
        f"{image_name} has {width} x {height} px, but the spots were placed on an image of about "
        f"{expected_width:.0f} x {expected_height:.0f} px; pass that image"
    )


def _explain(pixels: np.ndarray, shape: tuple[int, int], scale_factors: Mapping[str, float]) -> str:
    """Return the transformation that would put the spots on the image, or the likely causes."""
    swapped = share_on_image(pixels[:, ::-1], shape)
    if swapped >= WARN_BELOW:
        return f"with x and y swapped, {swapped:.0%} of them would: swap the two columns"
    for name, factor in scale_factors.items():
        scaled = pixels * factor
        share = share_on_image(scaled, shape)
        if share >= WARN_BELOW and _extent(scaled, shape) >= MIN_EXTENT:
            return (
                f"with coordinates times {name} ({factor:g}), {share:.0%} of them would: this is "
                "a reduced picture, and the centers are in pixels of the full-resolution image; "
                "pass that image"
            )
    return (
        "likely causes: it is the image of another slide, it is a reduced picture (hires or "
        "lowres) while the centers are in pixels of the full-resolution image, or x and y are "
        "swapped"
    )


def _extent(pixels: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the larger share of the image that the spots span, along x or along y."""
    span = pixels.max(axis=0) - pixels.min(axis=0)
    height, width = shape
    return float((span / (width, height)).max())
