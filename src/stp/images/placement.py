"""Check that the spots of a slide lie on its image."""

from collections.abc import Mapping

import numpy as np

from stp._log import warn

REFUSE_BELOW = 0.5  # share of spot centers on the image
WARN_BELOW = 0.95
# A scale factor explains misplaced spots only if it spreads them over this share of the image.
MIN_EXTENT = 0.3
# An image may be this much larger or smaller than expected: sizes of pictures are rounded.
SIZE_TOLERANCE = 0.01


def share_on_image(pixels: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the share of places (n, 2), as x and y in pixels, on an image (height, width).

    Places without coordinates do not count.
    """
    height, width = shape
    places = pixels[np.isfinite(pixels).all(axis=1)]
    is_inside = (places >= 0) & (places <= (width, height))
    return float(is_inside.all(axis=1).mean()) if len(places) else 1.0


def check_image_size(
    shape: tuple[int, int], expected_shape: tuple[float, float], image_name: str
) -> None:
    """Raise ValueError if an image does not have the size of the one that Space Ranger read.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    expected_shape
        Height and width that the image should have: those of the hires picture divided by
        `tissue_hires_scalef`. A side that is 1 % longer or shorter is accepted.
    image_name
        What the message calls the image.
    """
    height, width = shape
    expected_height, expected_width = expected_shape
    upright = (height / expected_height, width / expected_width)
    if _is_close(upright[0], 1) and _is_close(upright[1], 1):
        return
    turned = (height / expected_width, width / expected_height)
    if _is_close(turned[0], 1) and _is_close(turned[1], 1):
        explanation = "it is turned by 90 degrees; pass the image that Space Ranger read"
    elif _is_close(upright[0], upright[1]):
        factor = (upright[0] * upright[1]) ** 0.5
        explanation = f"it is {_describe_copy(factor)}; pass the image that Space Ranger read"
    elif _is_close(turned[0], turned[1]):
        factor = (turned[0] * turned[1]) ** 0.5
        explanation = (
            f"it is {_describe_copy(factor)}, turned by 90 degrees; pass the image that Space "
            "Ranger read"
        )
    else:
        explanation = "it is another image; pass the one that Space Ranger read"
    raise ValueError(
        f"{image_name} has {width} x {height} px, but hires picture and tissue_hires_scalef give "
        f"{expected_width:.0f} x {expected_height:.0f} px: {explanation}"
    )


def _is_close(ratio: float, expected: float) -> bool:
    return abs(ratio / expected - 1) <= SIZE_TOLERANCE


def _describe_copy(factor: float) -> str:
    kind = "a reduced" if factor < 1 else "an enlarged"
    return f"{kind} copy with {factor:.3g} times the pixels along each side"


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
    picture_factors = {
        name: factor for name, factor in (scale_factors or {}).items() if name.endswith("_scalef")
    }
    if share >= WARN_BELOW:
        _warn_if_in_a_corner(pixels, shape, image_name, picture_factors)
        return
    height, width = shape
    fact = (
        f"only {share:.0%} of {len(pixels)} spot centers lie on {image_name} "
        f"({width} x {height} px)"
    )
    explanation = _explain(pixels, shape, picture_factors)
    if share >= REFUSE_BELOW:
        warn(f"{fact}; {explanation}. Look at it with stp.pl.patches(sdata)")
        return
    raise ValueError(f"{fact}; {explanation}")


def _warn_if_in_a_corner(
    pixels: np.ndarray,
    shape: tuple[int, int],
    image_name: str,
    picture_factors: Mapping[str, float],
) -> None:
    """Warn if all spots lie in a corner of the image and a scale factor would spread them on it."""
    if _extent(pixels, shape) >= MIN_EXTENT:
        return
    for name, factor in picture_factors.items():
        if _spreads_on_image(pixels / factor, shape):
            warn(
                f"all spot centers lie in a corner of {image_name}; divided by {name} "
                f"({factor:g}), they would spread over it. Are they pixels of a reduced picture? "
                "Look at it with stp.pl.patches(sdata)"
            )
            return


def _explain(
    pixels: np.ndarray, shape: tuple[int, int], picture_factors: Mapping[str, float]
) -> str:
    """Return the transformation that would put the spots on the image, or the likely causes."""
    swapped = share_on_image(pixels[:, ::-1], shape)
    if swapped >= WARN_BELOW:
        return f"with x and y swapped, {swapped:.0%} of them would: swap the two columns"
    for name, factor in picture_factors.items():
        if _spreads_on_image(pixels * factor, shape):
            return (
                f"with coordinates times {name} ({factor:g}), "
                f"{share_on_image(pixels * factor, shape):.0%} of them would: this is a reduced "
                "picture, and the centers are in pixels of the full-resolution image; pass that "
                "image"
            )
    return (
        "likely causes: it is the image of another slide, it is a reduced picture (hires or "
        "lowres) while the centers are in pixels of the full-resolution image, or x and y are "
        "swapped. If the image shows only a part of the slide, leave out the other spots"
    )


def _spreads_on_image(pixels: np.ndarray, shape: tuple[int, int]) -> bool:
    return share_on_image(pixels, shape) >= WARN_BELOW and _extent(pixels, shape) >= MIN_EXTENT


def _extent(pixels: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the larger share of the image that the spots span, along x or along y."""
    places = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(places):
        return 0.0
    span = places.max(axis=0) - places.min(axis=0)
    height, width = shape
    return float((span / (width, height)).max())
