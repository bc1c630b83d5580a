"""The groups of neighboring spots that neighborhood training reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.data.neighborhoods import neighborhoods as draw_groups
from stp.images.regions import check_one_slide
from stp.pl import _colors
from stp.pl._figure import axes_or_new, figure_of, finish, set_titles
from stp.pl._markers import marker_area
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
    group_size: int = 9,
    seed: int = 0,
    spatial_key: str = keys.SPATIAL,
    table_key: str = "table",
    size: float = 1.0,
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw groups of neighboring spots, and the spots without a group (paper, Algorithm 2).

    Training draws new groups in each epoch. The figure shows one draw.

    Parameters
    ----------
    adata
        Table with spot coordinates.
    group_size
        Number of spots per group, with the center.
    seed
        Random seed for the groups.
    spatial_key
        Name of the spot coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData.
    size
        Size of the spots, as a factor of their default size.
    palette
        Colors of categories: a list in their order, a mapping from each category to its color, or
        the name of a color map of matplotlib.
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
    A figure with a color for each group and a line from its center to each neighbor. Open circles
    are spots without a group. The categories of `palette` are the groups "0", "1" and so on; a
    short list is repeated. Nothing is returned if the figure is shown or your own.

    Raises
    ------
    KeyError
        There are no coordinates.
    ValueError
        Spots have no coordinates, or the table has several slides.

    Examples
    --------
    >>> stp.pl.neighborhoods(sdata)
    """
    table = get_table(adata, table_key)
    xy = read_coordinates(table, spatial_key)
    require_coordinates(xy, table.obs_names, REMEDY)
    check_one_slide(table, xy)
    groups = draw_groups(xy, np.random.default_rng(seed), size=group_size)
    area = marker_area(len(xy)) * size**2
    panel = axes_or_new(ax, (6.4, 6))
    colors = _group_colors(len(groups), palette)
    for number, group in enumerate(groups):
        _draw_group(panel, xy[group], colors[number], area)
    has_no_group = np.setdiff1d(np.arange(len(xy)), groups)
    x, y = xy[has_no_group].T
    panel.scatter(
        x,
        y,
        facecolors="none",
        edgecolors="gray",
        s=area,
        linewidths=0.8,
        label="left out",
    )
    share = groups.size / max(len(xy), 1)
    panel.set(
        title=f"{len(groups)} groups of {group_size}, {share:.0%} of {len(xy)} spots",
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    panel.invert_yaxis()
    if len(has_no_group):
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    set_titles([panel], title)
    return finish(figure_of(panel), ax=ax, show=show, save=save, return_fig=return_fig)


def _group_colors(n_groups: int, palette: _colors.Palette | None) -> list[str]:
    """Return a color for each group; default colors are repeated if there are many groups."""
    if palette is None:
        palette = _colors.of_categories(min(n_groups, MAX_COLORS))
    return _colors.of_palette(palette, [str(i) for i in range(n_groups)], can_repeat=True)


def _draw_group(ax: "Axes", xy: np.ndarray, color: str, area: float) -> None:
    """Draw the spots of a group (n, 2), its center first, with a line to each neighbor."""
    from matplotlib.collections import LineCollection

    center, *neighbors = xy
    lines = [(center, neighbor) for neighbor in neighbors]
    ax.add_collection(LineCollection(lines, colors=[color], linewidths=0.8, zorder=1))
    ax.scatter(xy[1:, 0], xy[1:, 1], color=color, s=area, linewidths=0, zorder=2)
    x, y = center
    ax.scatter(x, y, color=color, s=2 * area, edgecolors="black", linewidths=0.8, zorder=3)
