"""Tissue on a slide: by its stain, without glass and ink, or inside polygons."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

MIN_SATURATION = 0.07  # of stained tissue; glass is white or gray
MAX_BRIGHTNESS = 230  # of the darkest channel of stained tissue

# The inks of pens, by how much light each channel absorbs (optical density) at 16 µm per pixel.
# On H&E and IHC of several laboratories, less than 1.4 % of the pixels of a slide exceed a limit.
WHITE = 245.0  # of glass, where the optical density is 0
DARKEST = 4.0  # the sensor's noise; darker values have the density of this one
MIN_RED_DENSITY = 0.15  # paler colors are those of glass and of thin tissue
GREEN_INK = 1.3  # density of red over that of green; hematoxylin has at most 1.25
BLUE_INK = 2.6  # density of red over that of blue; hematoxylin has at most 2.5
BLUE_INK_GREEN = 0.85  # density of red over that of green; hematoxylin has 0.7 to 1.2
DARK_INK = 0.85  # density of red under which no stain gets if it is blue
DARK_INK_BLUE = 1.3  # density of red over that of blue, to tell dark blue from black
GRAY = 0.85  # the lowest density over the highest; stains have at most 0.8
DARK_GRAY = 0.8  # the same for what is nearly black; hematoxylin with DAB has at most 0.78
MIN_GRAY_DENSITY = 0.2
MIN_BLACK_DENSITY = 0.6

# The largest difference between two channels of a gray pixel, by its brightest channel.
_GRAY_DIFFERENCE = (MIN_SATURATION * np.maximum(np.arange(256), 1)).astype(np.uint8)


def is_stained(rgb: np.ndarray) -> np.ndarray:
    """Return which pixels (..., 3) have a color, that of a stain or an ink: not white or gray."""
    red, green, blue = np.moveaxis(rgb, -1, 0)  # maxima over a short axis take much longer
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    if rgb.dtype == np.uint8:
        is_saturated = brightest - darkest > _GRAY_DIFFERENCE[brightest]
    else:
        is_saturated = brightest - darkest > MIN_SATURATION * np.maximum(brightest, 1)
    return is_saturated & (darkest < MAX_BRIGHTNESS)


def is_ink(rgb: np.ndarray) -> np.ndarray:
    """Return which pixels (..., 3) are blue, green or black ink of a pen.

    Stains absorb green light most (hematoxylin, eosin) or blue light (DAB). Blue and green inks
    absorb red light most, and black ink absorbs all colors. Red ink has the colors of eosin and
    blood, and violet ink those of hematoxylin, so neither is found.
    """
    density = -np.log10(np.clip(rgb, DARKEST, None) / WHITE)
    red, green, blue = np.moveaxis(density, -1, 0)
    lowest = density.min(axis=-1)
    highest = density.max(axis=-1)
    is_green = (red > MIN_RED_DENSITY) & (red > GREEN_INK * green)
    is_blue = (red > MIN_RED_DENSITY) & (red > BLUE_INK * blue) & (red > BLUE_INK_GREEN * green)
    is_dark_blue = (red > DARK_INK) & (red > DARK_INK_BLUE * blue) & (red > BLUE_INK_GREEN * green)
    is_gray = (lowest > MIN_GRAY_DENSITY) & (lowest > GRAY * highest)
    is_black = (lowest > MIN_BLACK_DENSITY) & (lowest > DARK_GRAY * highest)
    return is_green | is_blue | is_dark_blue | is_gray | is_black


def share_in_polygons(
    polygons: "Sequence[BaseGeometry]", x: np.ndarray, y: np.ndarray, side: float
) -> np.ndarray:
    """Return the share of each tile of a grid that lies in polygons: (n_y, n_x).

    Parameters
    ----------
    polygons
        Polygons in pixels.
    x
        Centers of the columns (n_x,) in pixels.
    y
        Centers of the rows (n_y,) in pixels.
    side
        Side of a tile in pixels.
    """
    import shapely

    area = shapely.union_all(polygons)
    shares = np.zeros((len(y), len(x)))
    left = x - side / 2
    for row, top in enumerate(y - side / 2):
        # A strip has few of the vertices, so cutting its tiles is fast.
        strip = shapely.intersection(area, shapely.box(left[0], top, left[-1] + side, top + side))
        if not strip.is_empty:
            tiles = shapely.box(left, top, left + side, top + side)
            shares[row] = shapely.area(shapely.intersection(tiles, strip)) / side**2
    return shares


def mask_to_polygons(
    mask: np.ndarray, um_per_px: float, *, slide_um_per_px: float
) -> "list[Polygon]":
    """Return the outlines of a tissue mask as polygons in pixels of level 0 of the slide.

    The outlines run along the edges of pixels, so their area is exactly that of the mask. Holes
    stay holes. `stp.io.read_wsi(path, tissue=polygons)` uses the polygons.

    Parameters
    ----------
    mask
        Mask (y, x) of the whole slide: boolean, or whole numbers that are not 0 on tissue. Its
        first pixel lies at the corner of the slide.
    um_per_px
        µm per pixel of the mask.
    slide_um_per_px
        µm per pixel of level 0 of the slide. The mask has no other link to its pixels.

    Returns
    -------
    Polygons with x and y in pixels of level 0 of the slide. They do not overlap.

    Raises
    ------
    ValueError
        The mask has no tissue, is not two-dimensional, or has numbers that are not whole; or a
        scale is not positive. A mask finer than the slide only gives a warning.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((100, 100), dtype=bool)
    >>> mask[20:60, 30:80] = True
    >>> (polygon,) = stp.images.mask_to_polygons(mask, 8.0, slide_um_per_px=0.5)
    >>> polygon.bounds
    (480.0, 320.0, 1280.0, 960.0)
    """
    import shapely

    for name, value in (("um_per_px", um_per_px), ("slide_um_per_px", slide_um_per_px)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive, not {value}")
    if um_per_px < slide_um_per_px:
        warn(
            f"the mask has {um_per_px:g} µm per pixel, finer than the slide with "
            f"{slide_um_per_px:g}; are um_per_px and slide_um_per_px exchanged?"
        )
    is_tissue = _read_mask(mask)
    # Each run of pixels in a row is a rectangle; their union is exact.
    steps = np.diff(np.pad(is_tissue.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, stops = np.nonzero(steps == -1)
    area = shapely.union_all(shapely.box(starts, rows, stops, rows + 1))
    factor = um_per_px / slide_um_per_px
    corners = shapely.simplify(area, 0)  # without the vertices between corners
    return list(shapely.get_parts(shapely.transform(corners, lambda xy: xy * factor)))


def _read_mask(mask: np.ndarray) -> np.ndarray:
    """Return where a mask (y, x) has tissue, or raise ValueError if it is no mask."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has the axes y and x, not the shape {mask.shape}")
    if mask.dtype.kind not in "biu" and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"a mask is boolean or has whole numbers, but this one is {mask.dtype} with values "
            "between; choose a threshold first, such as mask > 0.5"
        )
    is_tissue = mask != 0
    if not is_tissue.any():
        raise ValueError(f"the mask of shape {mask.shape} has no tissue: all its pixels are 0")
    return is_tissue
