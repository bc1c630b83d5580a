"""The groups of neighboring spots that neighborhood training reads."""

from typing import TYPE_CHECKING

import numpy as np

from stp.data.neighborhoods import neighborhoods as draw_groups
from stp.images.regions import check_one_slide
from stp.pl import _colors
from stp.pl._tissue_image import marker_area
from stp.tables import keys
from stp.tables.coordinates import REMEDY, read_coordinates, require_coordinates
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_COLORS = 102  # the longest list of colors that scanpy has


def neighborhoods(
    adata: "AnnData | SpatialData",
    *,
    size: int = 9,
    seed: int = 0,
    spatial_key: str = keys.SPATIAL,
    table_key: str = "table",
) -> "Figure":
    """Draw groups of neighboring spots, and the spots without a group (paper, Algorithm 2).

    Training draws new groups in each epoch. The figure shows one draw.

    Parameters
    ----------
    adata
        Table with spot coordinates.
    size
        Number of spots per group, with the center.
    seed
        Random seed for the groups.
    spatial_key
        Name of the spot coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A figure with a color for each group and a line from its center to each neighbor. Open circles
    are spots without a group.

    Raises
    ------
    KeyError
        There are no coordinates.
    ValueError
        Spots have no coordinates, or the table has several slides.

    Examples
    --------
    >>> figure = stp.pl.neighborhoods(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(adata, table_key)
    xy = read_coordinates(table, spatial_key)
    require_coordinates(xy, table.obs_names, REMEDY)
    check_one_slide(table, xy)
    groups = draw_groups(xy, np.random.default_rng(seed), size=size)
    figure, ax = plt.subplots(figsize=(6.4, 6), layout="constrained")
    colors = _colors.of_categories(min(len(groups), MAX_COLORS))
    for number, group in enumerate(groups):
        _draw_group(ax, xy[group], colors[number % len(colors)], marker_area(len(xy)))
    has_no_group = np.setdiff1d(np.arange(len(xy)), groups)
    x, y = xy[has_no_group].T
    ax.scatter(
        x,
        y,
        facecolors="none",
        edgecolors="gray",
        s=marker_area(len(xy)),
        linewidths=0.8,
        label="left out",
    )
    share = groups.size / max(len(xy), 1)
    ax.set(
        title=f"{len(groups)} groups of {size}, {share:.0%} of {len(xy)} spots",
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    ax.invert_yaxis()
    if len(has_no_group):
        ax.legend(loc="upper right", frameon=False)
    return figure


def _draw_group(ax: "Axes", xy: np.ndarray, color: str, area: float) -> None:
    """Draw the spots of a group (n, 2), its center first, with a line to each neighbor."""
    from matplotlib.collections import LineCollection

    center, *neighbors = xy
    lines = [(center, neighbor) for neighbor in neighbors]
    ax.add_collection(LineCollection(lines, colors=[color], linewidths=0.8, zorder=1))
    ax.scatter(xy[1:, 0], xy[1:, 1], color=color, s=area, linewidths=0, zorder=2)
    x, y = center
    ax.scatter(x, y, color=color, s=2 * area, edgecolors="black", linewidths=0.8, zorder=3)
