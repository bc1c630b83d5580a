"""The tiles of a slide on its thumbnail."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import affine_of, linear_scale
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl._tissue_image import SCALE_BAR, read_overview
from stp.tables.table import get_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PANEL_INCHES = 4.6  # longer side of a panel
COLOR = "#3f90da"  # blue, which is rare in H&E
FILL_ALPHA = 0.2


def tissue(
    sdata: "SpatialData",
    *,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
) -> "Figure":
    """Draw the whole slide, and on it the tiles that :func:`stp.io.read_wsi` put on tissue.

    Parameters
    ----------
    sdata
        SpatialData with one slide, whose table has a row per tile.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A figure with the thumbnail of the slide on the left, and the tiles on it on the right.

    Raises
    ------
    ValueError
        The spots have no size: they are neither circles nor polygons.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> figure = stp.pl.tissue(slide)
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    slide = only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    height, width = slide.pyramid.levels[0].shape
    panel = np.array([width, height]) * PANEL_INCHES / max(width, height)
    tile_um = _tile_um(sdata, slide)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(2 * max(panel[0], 2.4), panel[1] + 0.3), layout="constrained"
    )
    picture, _ = read_overview(slide)
    for ax in (left, right):
        _draw_picture(ax, slide, picture)
    left.set_title(slide.image_key)
    _draw_tiles(right, slide, tile_um)
    right.set_title(f"{len(slide.rows)} tiles of {tile_um:.3g} µm")
    return figure


def _tile_um(sdata: "SpatialData", slide: Slide) -> float:
    """Return the side of the tiles in µm: the diameter of circles, or the side of squares."""
    shapes: Any = sdata.shapes.get(slide.region)
    if shapes is None:
        raise ValueError(
            f"the spots of the table are the labels {slide.region!r}, which are no tiles; "
            "stp.io.read_wsi(path, tile_um=) makes tiles"
        )
    if "radius" in shapes:
        side = 2 * float(np.median(shapes["radius"]))
    else:
        side = float(np.sqrt(np.median(shapes.area)))
    to_system = linear_scale(affine_of(shapes, slide.coordinate_system))
    to_pixels = linear_scale(slide.pyramid.affine)
    return side * to_system * to_pixels * slide.pyramid.um_per_px


def _draw_picture(ax: "Axes", slide: Slide, picture: np.ndarray) -> None:
    """Draw the whole slide in µm, with a scale bar."""
    from matplotlib_scalebar.scalebar import ScaleBar

    height, width = (side * slide.pyramid.um_per_px for side in slide.pyramid.levels[0].shape)
    ax.imshow(picture, extent=(0.0, width, height, 0.0))
    ax.add_artist(ScaleBar(1.0, "um", **SCALE_BAR))
    ax.set(xticks=[], yticks=[])


def _draw_tiles(ax: "Axes", slide: Slide, tile_um: float) -> None:
    """Draw the tiles as squares."""
    from matplotlib.collections import PolyCollection

    centers = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
    corners = tile_um / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    squares = PolyCollection(
        list(centers[:, None] + corners),
        facecolors=[(COLOR, FILL_ALPHA)],
        edgecolors=COLOR,
        linewidths=0.6,
    )
    ax.add_collection(squares, autolim=False)
