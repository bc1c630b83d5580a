"""A query by genes: its score on the tissue, the best and worst tiles, and the genes behind it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.images.slides import SlideQuery
from stp.images.tile_places import find_tile_places, tile_record
from stp.pl._figure import finish, wrap
from stp.pl._patches import NAME_SIZE
from stp.pl._tile_pictures import (
    TilePictures,
    choose_tiles,
    label_rows,
    open_pixels,
    side_of_tiles,
)
from stp.pl._tissue_tiles import add_tiles, draw_gray_tissue, find_tissue
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from stp.pl._tissue_image import Tissue

QUERY_CALL = "stp.tl.query_by_genes(sdata, genes, reference=reference)"
TILE_INCHES = 1.5
GENES_INCHES = 2.4
BAR_INCHES = 1.0  # width of the color bar with its numbers
N_BARS = 12  # genes that are drawn
N_NAMED = 4  # genes in the title
OPACITY = 0.8  # of tiles on the tissue
PERCENTILES = (1, 99)  # at which the color scale ends
HIGH, LOW = "#c0392b", "#2c6fa6"  # raise and lower the score


def query(
    sdata: "SpatialData",
    *,
    key: str = keys.QUERY,
    n: int = 5,
    image: str | Path | None = None,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    cmap: "str | Colormap" = "magma",
    title: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw a query by genes: its score on the tissue, its best and worst tiles, and its genes.

    Parameters
    ----------
    sdata
        SpatialData with the tiles or spots of one slide, searched by
        :func:`stp.tl.query_by_genes`. A tile store has no pixels: they are read from the slide that
        it was made from.
    key
        Name of the query.
    n
        Number of tiles of each kind.
    image
        Path of the slide, if it is not where it was when its tiles were laid, or if the features
        were read from the file of another tool.
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
        Title of the figure, instead of the genes that were searched.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure. On the left is the score on gray tissue; tiles that are far from all references are
    outlined. In the middle are the tiles of highest score, the highest first, and of lowest score,
    the lowest first, without far tiles. On the right is for each gene how much higher its mean log
    expression is in the examples of high expression than in those of low expression, for up to 12
    genes. Red genes have a positive weight, blue genes a negative one. Nothing is returned if the
    figure is shown.

    Raises
    ------
    FileNotFoundError
        The slide is not where it was when its tiles were laid; pass `image`.
    KeyError
        There is no such query.
    TypeError
        `sdata` is no SpatialData, so that tiles have no places.
    ValueError
        The slide was changed after its tiles were laid, tiles have no places, the table covers
        several slides, or `n` is not positive.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.query_by_genes(sdata, ["EPCAM"], reference=reference)
    >>> stp.pl.query(sdata, n=3)
    """
    import matplotlib.pyplot as plt

    record = tile_record(sdata)
    table = get_table(sdata, table_key)
    if n < 1:
        raise ValueError(f"n is the number of tiles in a row, at least 1, not {n}")
    score = require(table, "obs", key, QUERY_CALL).to_numpy(dtype=float)
    is_far = require(table, "obs", keys.far(key), QUERY_CALL).to_numpy(dtype=bool)
    genes = _read_genes(table, key)
    places = find_tile_places(sdata, table, um_per_px)
    tissue = find_tissue(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    near_scores = np.where(is_far, np.nan, score)[places.rows]
    highest, lowest = choose_tiles(near_scores, n, QUERY_CALL)
    side_um = side_of_tiles(table, key, record, places)
    pictures = TilePictures(open_pixels(record, image, places), places, side_um)
    width, height = tissue.panel_inches
    n_columns = len(highest)
    figure = plt.figure(
        figsize=(
            width + BAR_INCHES + TILE_INCHES * n_columns + GENES_INCHES,
            max(height + 0.8, 2 * TILE_INCHES + 1.2),
        ),
        layout="constrained",
    )
    widths = [width + BAR_INCHES, *[TILE_INCHES] * n_columns, GENES_INCHES]
    grid = figure.add_gridspec(2, n_columns + 2, width_ratios=widths)
    map_ax = figure.add_subplot(grid[:, 0])
    tile_um = record.get("tile_um")
    _draw_score(map_ax, tissue, score, is_far, tile_um=tile_um, cmap=cmap)
    axes = np.array(
        [
            [figure.add_subplot(grid[row, 1 + column]) for column in range(n_columns)]
            for row in (0, 1)
        ]
    )
    for row, index in zip(axes, (highest, lowest), strict=True):
        pictures.draw(row, index, [f"{number:+.3f}" for number in near_scores[index]])
    label_rows(axes)
    _draw_genes(figure.add_subplot(grid[:, -1]), genes)
    figure.suptitle(title if title is not None else _name_query(genes))
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _read_genes(table: "AnnData", key: str) -> "pd.DataFrame":
    """Return the genes of a query, or raise KeyError if there is no such query."""
    entry = require(table, "uns", key, QUERY_CALL)
    if "genes" not in entry or "weight" not in entry["genes"]:
        raise KeyError(f"adata.uns[{key!r}] is no query by genes; run {QUERY_CALL} first")
    return entry["genes"]


def _name_query(genes: "pd.DataFrame") -> str:
    """Return the genes of largest weight, with a minus before negative ones, as a title."""
    order = np.argsort(-genes["weight"].abs().to_numpy(), kind="stable")
    names = [
        f"{'' if genes['weight'].iloc[row] > 0 else '−'}{genes.index[row]}"
        for row in order[:N_NAMED]
    ]
    more = f" and {len(genes) - N_NAMED} more genes" if len(genes) > N_NAMED else ""
    return f"Query: {', '.join(names)}{more}"


def _draw_score(
    ax: "Axes",
    tissue: "Tissue",
    score: np.ndarray,
    is_far: np.ndarray,
    *,
    tile_um: float | None,
    cmap: "str | Colormap",
) -> None:
    """Draw the score of tiles on gray tissue, and outline those far from all references."""
    from matplotlib.colors import Normalize

    draw_gray_tissue(ax, tissue, "score", tile_um)
    values = score[tissue.rows]
    has_value = np.isfinite(values)
    low, high = np.percentile(values[has_value], PERCENTILES)
    tiles = add_tiles(ax, tissue, has_value, tile_um)
    tiles.set(array=values[has_value], norm=Normalize(low, high), cmap=cmap, alpha=OPACITY)
    is_outlined = has_value & is_far[tissue.rows]
    if is_outlined.any():
        outlines = add_tiles(ax, tissue, is_outlined, tile_um)
        outlines.set(facecolor="none", edgecolor="black", linewidth=0.6)
    inset = ax.inset_axes((1.03, 0.0, 0.045, 1.0))  # as tall as the map
    ax.figure.colorbar(tiles, cax=inset, label="difference of cosines", extend="both")


def _draw_genes(ax: "Axes", genes: "pd.DataFrame") -> None:
    """Draw how much higher each gene is in the examples of high expression."""
    difference = (genes["highest"] - genes["lowest"]).to_numpy(dtype=float)
    weight = genes["weight"].to_numpy(dtype=float)
    order = np.argsort(-np.abs(difference), kind="stable")[:N_BARS]
    order = order[np.argsort(-difference[order], kind="stable")]
    colors = [HIGH if weight[row] > 0 else LOW for row in order]
    ax.barh(np.arange(len(order)), difference[order], color=colors, height=0.7)
    names = [wrap(str(genes.index[row]), GENES_INCHES / 2, NAME_SIZE) for row in order]
    ax.set_yticks(np.arange(len(order)), names, fontsize=NAME_SIZE)
    ax.set_ylim(max(len(order), 4) - 0.4, -0.6)  # from above; a single bar stays a bar
    ax.axvline(0, color="black", linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="x", labelsize=NAME_SIZE)
    ax.tick_params(axis="y", length=0)
    ax.set_title("measured spots behind it", fontsize=NAME_SIZE + 1)
    ax.set_xlabel("log expression,\nhigh minus low examples", fontsize=NAME_SIZE)
