"""Attention of tiles, and their contributions to a prediction, on the tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.slides import SlideQuery
from stp.images.tile_places import tile_record
from stp.pl._figure import figure_of, finish, set_titles
from stp.pl._tissue_image import Tissue
from stp.pl._tissue_tiles import add_tiles, draw_gray_tissue, find_tissue, widen
from stp.tables import keys
from stp.tables.table import as_list, get_table
from stp.tables.tile_scores import (
    TileValues,
    attention_columns,
    default_outputs,
    read_attention,
    read_contribution,
    read_outputs,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_COLUMNS = 4
BAR_INCHES = 1.1  # width of a color bar with its numbers and text
SIGNED_MAP = "RdBu_r"  # blue lowers, red raises; both differ with any color vision
UNSIGNED_MAP = "YlOrRd"
FADE = (0.1, 0.75)  # opacity of the lowest and the highest values, under which tissue is seen
SHARE_IN_SCALE = 99  # percent of the tiles whose values the colors resolve


def attention(
    sdata: "SpatialData",
    *,
    key: str = keys.ATTENTION,
    color: str | Sequence[str] | None = None,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    cmap: "str | Colormap | None" = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the attention of tiles and their contributions to a prediction on the tissue.

    Attention says where a slide model looks, and not in which direction. Contributions do: they
    are signed, and add up to the prediction.

    Parameters
    ----------
    sdata
        SpatialData with the tiles or spots of one slide, scored by :func:`stp.tl.score_tiles`. A
        tile store has a thumbnail of its slide. Without an image the tiles are drawn alone.
    key
        Name of the scores of tiles.
    color
        One or several names, each for a panel: columns of `obs` with attention, such as
        `stp_attention`, and outputs in `uns[key]["outputs"]`, whose contributions are drawn. By
        default the attention of each target is drawn, and the contributions to its outputs; of two
        classes to the positive one.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.
    cmap
        Color map of numbers: a color map of matplotlib, or its name.
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
    A figure with the tissue on the left, then a panel for each name with the tiles on gray tissue.
    Weak values are transparent. Contributions have diverging colors around zero. They are log-odds
    of a class, or in the units of a value; of three and more classes they are logits above the
    mean class. The color scale ends at the 99th percentile, and a pointed end says that values go
    beyond. With `ax`, one panel is drawn. Nothing is returned if the figure is shown or your own.

    Raises
    ------
    KeyError
        Tiles have no scores, or a name is neither attention nor an output.
    TypeError
        `sdata` is no SpatialData, so that tiles have no places.
    ValueError
        Tiles have no places, or `ax` is passed for several names.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/map", targets=target, config=config)
    >>> tiles = stp.io.read_features("features/P1.h5")
    >>> stp.tl.score_tiles(tiles, slide_model)
    >>> stp.pl.attention(tiles)
    """
    record = tile_record(sdata)
    table = get_table(sdata, table_key)
    names = _list_names(table, key) if color is None else as_list(color)
    if ax is not None and len(names) != 1:
        raise ValueError(f"ax is one panel, but color has {len(names)} names; pass one name")
    panels = [read_named(table, key, name) for name in names]
    tissue = find_tissue(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    tile_um = record.get("tile_um")
    axes = [ax] if ax is not None else _new_axes(tissue, len(names), tile_um)
    for panel_ax, panel in zip(axes, panels, strict=True):
        _draw_panel(panel_ax, tissue, panel, tile_um, cmap)
    set_titles(axes, title)
    return finish(figure_of(axes[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _list_names(table: "AnnData", key: str) -> list[str]:
    """Return the names that are drawn by default: for each target attention and outputs."""
    outputs = read_outputs(table, key)
    names = []
    for column, target in attention_columns(table, key).items():
        names += [column, *default_outputs(outputs[outputs["target"] == target])]
    return names


def read_named(table: "AnnData", key: str, name: str) -> TileValues:
    """Return the attention of a column, or the contributions to an output.

    Raises
    ------
    KeyError
        There is no such name.
    """
    columns = attention_columns(table, key)
    if name in columns:
        return read_attention(table, key, name)
    outputs = read_outputs(table, key).index.tolist()
    if name not in outputs:
        raise KeyError(
            f"{name!r} is neither attention nor an output of uns[{key!r}]; choose from "
            f"{[*columns, *outputs]}"
        )
    return read_contribution(table, key, name)


def _new_axes(tissue: Tissue, n_panels: int, tile_um: float | None) -> list["Axes"]:
    """Return the panels of a new figure; if there is an image, it is drawn on the left."""
    import matplotlib.pyplot as plt

    has_image = tissue.image is not None
    n_axes = n_panels + has_image
    n_columns = min(n_axes, MAX_COLUMNS)
    n_rows = -(-n_axes // n_columns)
    width, height = tissue.panel_inches
    _, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(n_columns * (width + BAR_INCHES), n_rows * (height + 0.6)),
        layout="compressed",
        squeeze=False,
    )
    for ax in axes.flat[n_axes:]:
        ax.remove()
    if has_image:
        tissue.draw_image(axes[0, 0], "H&E")
        widen(axes[0, 0], tissue, tile_um)
    return list(axes.flat[int(has_image) : n_axes])


def _draw_panel(
    ax: "Axes",
    tissue: Tissue,
    panel: TileValues,
    tile_um: float | None,
    cmap: "str | Colormap | None",
) -> None:
    """Draw values of tiles on gray tissue, with a color bar that states their unit."""
    draw_gray_tissue(ax, tissue, panel.title, tile_um)
    values = panel.values[tissue.rows]
    has_value = np.isfinite(values)
    tiles = add_tiles(ax, tissue, has_value, tile_um)
    norm, extend = _color_scale(values[has_value], panel.is_signed)
    default = SIGNED_MAP if panel.is_signed else UNSIGNED_MAP
    tiles.set(array=values[has_value], norm=norm, cmap=_fade(cmap or default, panel.is_signed))
    inset = ax.inset_axes((1.03, 0.0, 0.045, 1.0))  # as tall as the map
    bar = ax.figure.colorbar(tiles, cax=inset, label=panel.unit, extend=extend)
    formatter: Any = bar.formatter
    formatter.set_powerlimits((-2, 4))
    formatter.set_useMathText(True)
    bar.update_ticks()


def _color_scale(values: np.ndarray, is_signed: bool) -> tuple["Normalize", str]:
    """Return the color scale of finite values, and at which ends values go beyond it."""
    from matplotlib.colors import Normalize

    high = 0.0
    if len(values):
        # A value that occurs: of up to a hundred tiles the highest.
        high = float(np.percentile(np.abs(values), SHARE_IN_SCALE, method="higher"))
    if high == 0:
        high = float(np.abs(values).max(initial=0.0)) or 1.0
    is_above = bool((values > high).any())
    is_below = is_signed and bool((values < -high).any())
    ends = {(True, True): "both", (True, False): "max", (False, True): "min"}
    extend = ends.get((is_above, is_below), "neither")
    return Normalize(-high if is_signed else 0.0, high), extend


def _fade(cmap: "str | Colormap", is_signed: bool) -> "Colormap":
    """Return a color map whose weak values are transparent."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    base = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    steps = np.linspace(0, 1, 256)
    colors = base(steps)
    strength = np.abs(2 * steps - 1) if is_signed else steps
    colors[:, 3] = FADE[0] + (FADE[1] - FADE[0]) * strength
    return ListedColormap(colors, name=f"{base.name}_faded")
