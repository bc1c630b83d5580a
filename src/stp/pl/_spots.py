"""Values of spots on the tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.pl import _colors
from stp.pl._figure import figure_of, finish, set_titles
from stp.pl._slide_view import CropCoord
from stp.pl._tissue_image import Tissue
from stp.pl._values import SpotValues, read_values
from stp.tables import keys
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_COLUMNS = 4
LEGEND_INCHES = 1.0  # width of a legend or a color bar


def spots(
    adata: "AnnData | SpatialData",
    color: str | Sequence[str],
    *,
    key: str | None = None,
    layer: str | None = None,
    image_key: str | None = None,
    um_per_px: float | None = None,
    spatial_key: str = keys.SPATIAL,
    table_key: str = "table",
    crop_coord: CropCoord | None = None,
    size: float = 1.0,
    cmap: "str | Colormap" = "magma",
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw spots on the tissue, colored by columns of `obs` or by the expression of genes.

    Columns can be clusters, labels, flags and scores. Genes can be measured or predicted.

    Parameters
    ----------
    adata
        SpatialData with one slide, or a table with coordinates, whose tissue is not drawn.
    color
        One or several names, each for a panel. A name is a column of `obs` with categories,
        booleans or numbers, or the symbol or Ensembl id of a gene. Categories have the colors of
        `uns["{column}_colors"]`. If there are none, default colors are stored there; `palette`
        replaces them, as in scanpy.
    key
        Name of the prediction whose genes are drawn. By default genes have their measured values,
        and a gene that is not measured has its predicted values.
    layer
        Layer with the measured values; by default `X`. Raw counts are drawn as log1p of counts per
        10,000, and other values as they are.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    spatial_key
        Name of the spot coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData.
    crop_coord
        Part of the slide to draw: left, right, top and bottom, in µm from the upper left corner of
        the image, or in the unit of the coordinates if there is no image. By default all spots are
        drawn.
    size
        Size of the spots, as a factor of their default size.
    cmap
        Color map of numbers: a color map of matplotlib, or its name.
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
    A figure with the tissue on the left, then a panel for each name with the spots on the paled
    tissue. Spots without a value are gray. With `ax`, only the panel of the spots is drawn. Nothing
    is returned if the figure is shown or your own.

    Notes
    -----
    More than 50,000 spots are drawn as an image: each pixel has the color of the nearest spot, so
    spots on a square lattice become squares.

    Raises
    ------
    KeyError
        A name is neither a column nor a gene.
    ValueError
        A name is a column and a gene, several predictions have a gene, `ax` is passed for several
        names, `palette` lacks a color, or no spot lies in `crop_coord`.

    Examples
    --------
    >>> stp.pl.spots(sdata, ["domain", "activity"])
    """
    table = get_table(adata, table_key)
    names = as_list(color)
    if ax is not None and len(names) != 1:
        raise ValueError(f"ax is one panel, but color has {len(names)} names; pass one name")
    panels = [read_values(table, name, key, layer) for name in names]
    tissue = Tissue.from_data(adata, table_key, image_key, um_per_px, spatial_key, crop_coord)
    axes = [ax] if ax is not None else _new_axes(tissue, len(names))
    for panel_ax, name, panel in zip(axes, names, panels, strict=True):
        categories = _as_categories(panel.values)
        if categories is None:
            _draw_numbers(tissue, panel_ax, panel, size, cmap)
        else:
            colors = _category_colors(table, name, categories, palette)
            tissue.draw_categories(panel_ax, categories, panel.title, colors=colors, size=size)
    set_titles(axes, title)
    figure = figure_of(axes[0])
    return finish(figure, ax=ax, show=show, save=save, return_fig=return_fig)


def _new_axes(tissue: Tissue, n_panels: int) -> list["Axes"]:
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
        figsize=(n_columns * (width + LEGEND_INCHES), n_rows * (height + 0.5)),
        layout="compressed",
        squeeze=False,
    )
    for ax in axes.flat[n_axes:]:
        ax.remove()
    if has_image:
        tissue.draw_image(axes[0, 0], "H&E")
    return list(axes.flat[int(has_image) : n_axes])


def _draw_numbers(
    tissue: Tissue, ax: "Axes", panel: SpotValues, size: float, cmap: "str | Colormap"
) -> None:
    tissue.draw_numbers(ax, panel.values, panel.title, size=size, cmap=cmap, label=panel.units)


def _as_categories(values: Any) -> "pd.Categorical | None":
    """Return categories, text and booleans as a Categorical; None for numbers."""
    import pandas as pd

    series = pd.Series(values)
    if pd.api.types.infer_dtype(series, skipna=True) == "boolean":
        return pd.Categorical(series, categories=[False, True])
    return None if pd.api.types.is_numeric_dtype(series) else pd.Categorical(series)


def _category_colors(
    table: "AnnData", name: str, categories: "pd.Categorical", palette: _colors.Palette | None
) -> list[str]:
    """Return a color for each category: of the palette, of `uns`, or default colors.

    Colors of a categorical column are stored in `uns`, unless it has enough of them.
    """
    labels = [str(label) for label in categories.categories]
    key = f"{name}_colors"
    if palette is not None:
        colors = _colors.of_palette(palette, labels)
    elif len(table.uns.get(key, ())) >= len(labels) > 0:
        return [str(color) for color in table.uns[key]]
    else:
        colors = [str(color) for color in _colors.of_categories(len(labels))]
    if hasattr(table.obs[name], "cat"):
        table.uns[key] = colors
    return colors
