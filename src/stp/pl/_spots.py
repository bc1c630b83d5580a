"""Values of spots, drawn on the tissue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._table import get_table, require
from stp.data.slides import Slide, only_slide
from stp.pl._tissue import frame, marker_area, picture_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

# Colors that people with any color vision tell apart (Okabe and Ito), and two more.
CATEGORIES = "#0072B2 #E69F00 #009E73 #CC79A7 #56B4E9 #D55E00 #F0E442 #000000 #999999 #882255".split()


def spots(
    sdata: "SpatialData",
    color: str | Sequence[str],
    *,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    size: float | None = None,
) -> "Figure":
    """Color spots by columns of `obs` beside the tissue they lie on.

    Parameters
    ----------
    sdata
        SpatialData with one slide.
    color
        One or several columns of `obs`, categories or numbers: a panel each.
    image_key, um_per_px
        Image and its scale; resolved as in :func:`stp.tl.embed_images`.
    table_key
        Table of the SpatialData.
    size
        Area of a spot's marker in points squared; by default it suits the number of spots.

    Returns
    -------
    The figure; axes are in um.

    Examples
    --------
    >>> figure = stp.pl.spots(sdata, ["domain", "activity"])
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    columns = [color] if isinstance(color, str) else list(color)
    values = [require(table, "obs", name, "what makes it") for name in columns]
    slide = only_slide(sdata, table, image_key=image_key, um_per_px=um_per_px)
    figure, axes = plt.subplots(
        1, 1 + len(columns), figsize=(4.6 * (1 + len(columns)), 4.2), layout="constrained", squeeze=False
    )
    xy = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
    draw_tissue(axes[0, 0], slide)
    axes[0, 0].set_title("H&E")
    for ax, name, column in zip(axes[0, 1:], columns, values, strict=True):
        _scatter(ax, xy, column.iloc[slide.rows], size)
        ax.set(title=name, xlabel="um", aspect="equal")
    for ax in axes.flat:
        frame(ax, xy)
    return figure


def draw_tissue(ax: "Axes", slide: Slide) -> None:
    """Draw a small picture of the whole slide, in um."""
    height, width = slide.pyramid.levels[0].shape
    um = slide.pyramid.um_per_px
    ax.imshow(picture_of(slide)[0], extent=(0.0, width * um, height * um, 0.0))
    ax.set(xlabel="um", ylabel="um")


def _scatter(ax: "Axes", xy: np.ndarray, values: Any, size: float | None) -> None:
    """Draw spots by category, with a legend, or by number, with a color bar."""
    import matplotlib.pyplot as plt
    import pandas as pd

    size = size or marker_area(len(xy))
    if pd.api.types.is_numeric_dtype(values):
        points = ax.scatter(*xy.T, c=values, s=size, linewidths=0)
        ax.figure.colorbar(points, ax=ax, shrink=0.7)
        return
    categories = values.astype("category").cat.categories
    colors = CATEGORIES if len(categories) <= len(CATEGORIES) else plt.get_cmap("tab20").colors
    for i, category in enumerate(categories):
        chosen = (values == category).to_numpy()
        ax.scatter(*xy[chosen].T, color=colors[i % len(colors)], s=size, linewidths=0, label=str(category))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.5)
