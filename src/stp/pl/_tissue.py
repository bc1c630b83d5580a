"""The tiles of a slide on its thumbnail."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import affine_of, linear_scale
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl._figure import figure_of, finish, set_titles, wrap
from stp.pl._slide_view import read_overview
from stp.pl._tissue_image import SCALE_BAR, TISSUE_ALPHA, TITLE_SIZE
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
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
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
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    ax
        Axes of your own figure to draw on. That figure is then shown only if `show` is true.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with the thumbnail of the slide on the left, and the tiles on it on the right. With
    `ax`, only the tiles are drawn. Nothing is returned if the figure is shown or your own.

    Raises
    ------
    ValueError
        The spots have no size: they are neither circles nor polygons.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> stp.pl.tissue(slide)
    """
    table = get_table(sdata, table_key)
    slide = only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    tile_um = _tile_um(sdata, slide)
    picture, _ = read_overview(slide)
    axes = [ax] if ax is not None else _new_axes(slide)
    if ax is None:
        _draw_picture(axes[0], slide, picture)
        axes[0].set_title(wrap(slide.image_key, PANEL_INCHES, TITLE_SIZE), fontsize=TITLE_SIZE)
    _draw_picture(axes[-1], slide, picture, alpha=TISSUE_ALPHA)
    _draw_tiles(axes[-1], slide, tile_um)
    axes[-1].set_title(f"{len(slide.rows)} tiles of {tile_um:.3g} µm", fontsize=TITLE_SIZE)
    set_titles(axes, title)
    return finish(figure_of(axes[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _new_axes(slide: Slide) -> list["Axes"]:
    """Return two panels of a new figure that have the shape of the slide."""
    import matplotlib.pyplot as plt

    height, width = slide.pyramid.levels[0].shape
    panel = np.array([width, height]) * PANEL_INCHES / max(width, height)
    figsize = (2 * max(panel[0], 2.4), panel[1] + 0.5)
    return list(plt.subplots(1, 2, figsize=figsize, layout="compressed")[1])


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


def _draw_picture(ax: "Axes", slide: Slide, picture: np.ndarray, alpha: float = 1.0) -> None:
    """Draw the whole slide in µm, with a scale bar."""
    from matplotlib_scalebar.scalebar import ScaleBar

    height, width = (side * slide.pyramid.um_per_px for side in slide.pyramid.levels[0].shape)
    ax.imshow(picture, extent=(0.0, width, height, 0.0), alpha=alpha)
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
