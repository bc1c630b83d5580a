"""The groups that neighborhood training reads, drawn where they lie."""

from typing import TYPE_CHECKING

import numpy as np

from stp.data.neighborhoods import neighborhoods as draw_groups
from stp.pl import _colors
from stp.pl._tissue import marker_area
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def neighborhoods(
    adata: "AnnData | SpatialData",
    *,
    size: int = 9,
    seed: int = 0,
    spatial_key: str = keys.SPATIAL,
    table_key: str = "table",
) -> "Figure":
    """Draw groups of neighboring spots, and the spots that are in none (paper, Algorithm 2).

    Training draws other groups in each epoch; this shows one such draw.

    Parameters
    ----------
    adata
        Table with coordinates.
    size
        Spots per group, the center included.
    seed
        Of the draw.
    spatial_key
        Coordinates in `obsm`.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The figure: every group a color, a line from its center to each neighbor; spots left out as open circles.

    Raises
    ------
    KeyError
        There are no coordinates.

    Examples
    --------
    >>> figure = stp.pl.neighborhoods(sdata)
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    table = get_table(adata, table_key)
    xy = np.asarray(require(table, "obsm", spatial_key, "what gives the coordinates"), dtype=float)[
        :, :2
    ]
    groups = draw_groups(xy, np.random.default_rng(seed), size=size)
    left_out = np.setdiff1d(np.arange(len(xy)), groups)
    figure, ax = plt.subplots(figsize=(6.4, 6), layout="constrained")
    marker = marker_area(len(xy))
    colors = _colors.of_categories(min(len(groups), 102))
    for number, group in enumerate(groups):
        color = colors[number % len(colors)]
        rays = [(xy[group[0]], xy[neighbor]) for neighbor in group[1:]]
        ax.add_collection(LineCollection(rays, colors=[color], linewidths=0.8, zorder=1))
        ax.scatter(
            xy[group[1:], 0], xy[group[1:], 1], color=color, s=marker, linewidths=0, zorder=2
        )
        x, y = xy[group[0]]
        ax.scatter(x, y, color=color, s=2 * marker, edgecolors="black", linewidths=0.8, zorder=3)
    x, y = xy[left_out].T
    ax.scatter(
        x, y, facecolors="none", edgecolors="gray", s=marker, linewidths=0.8, label="left out"
    )
    share = groups.size / max(len(xy), 1)
    ax.set(
        title=f"{len(groups)} groups of {size}, {share:.0%} of {len(xy)} spots",
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    ax.invert_yaxis()
    if len(left_out):
        ax.legend(loc="upper right", frameon=False)
    return figure
