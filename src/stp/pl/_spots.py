"""Values of spots, drawn on the tissue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import _keys
from stp._counts import log_normalized_blocks
from stp._table import get_table, require
from stp.data.slides import Slide, find_slides
from stp.metrics import gene_pearson

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PICTURE_PX = 1600  # longer side of the picture of the whole slide
MARGIN = 0.06  # around the spots, of their extent
CATEGORIES = "tab10"


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
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    columns = [color] if isinstance(color, str) else list(color)
    values = [require(table, "obs", name, "what makes it") for name in columns]
    slide = find_slides(sdata, table, image_key=image_key, um_per_px=um_per_px)[0]
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
        _frame(ax, xy)
    return figure


def _frame(ax: "Axes", xy: np.ndarray) -> None:
    """Show the spots with a margin; y points down, as in the image."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = MARGIN * (high - low).max()
    ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))


def draw_tissue(ax: "Axes", slide: Slide) -> None:
    """Draw a small picture of the whole slide, in um."""
    height, width = slide.pyramid.levels[0].shape
    um = slide.pyramid.um_per_px
    scale = max(height, width) / PICTURE_PX
    size = int(np.ceil(max(height, width) / scale))
    center = np.array([[max(height, width) / 2] * 2])
    in_pixels = type(slide.pyramid)(slide.pyramid.levels, um)
    picture = in_pixels.read(center, size=size, um_per_px=um * scale, allow_upsampling=True)[0]
    picture = picture[: int(np.ceil(height / scale)), : int(np.ceil(width / scale))]
    ax.imshow(picture, extent=(0.0, width * um, height * um, 0.0))
    ax.set(xlabel="um", ylabel="um")


def _size(n_spots: int) -> float:
    """Return the marker area at which this many spots neither touch nor vanish."""
    return float(np.clip(12_000 / max(n_spots, 1), 2, 40))


def _scatter(ax: "Axes", xy: np.ndarray, values: Any, size: float | None) -> None:
    """Draw spots by category, with a legend, or by number, with a color bar."""
    import matplotlib.pyplot as plt
    import pandas as pd

    size = size or _size(len(xy))
    if pd.api.types.is_numeric_dtype(values):
        points = ax.scatter(*xy.T, c=values, s=size, linewidths=0)
        ax.figure.colorbar(points, ax=ax, shrink=0.7)
        return
    categories = values.astype("category").cat.categories
    colors = plt.get_cmap(CATEGORIES if len(categories) <= 10 else "tab20").colors
    for i, category in enumerate(categories):
        chosen = (values == category).to_numpy()
        ax.scatter(*xy[chosen].T, color=colors[i % len(colors)], s=size, linewidths=0, label=str(category))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.5)


def expression(
    adata: "AnnData",
    genes: str | Sequence[str],
    *,
    key: str = _keys.EXPRESSION,
    layer: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
) -> "Figure":
    """Draw measured above predicted expression of some genes.

    Parameters
    ----------
    adata
        Table with raw counts, coordinates and a prediction of :func:`stp.tl.predict_expression`.
    genes
        Predicted genes that are also measured, by name: a column each.
    key
        Name of the prediction.
    layer
        Layer of the raw counts; X by default.
    spatial_key
        Coordinates in `obsm`.
    size
        Area of a spot's marker in points squared; by default it suits the number of spots.

    Returns
    -------
    The figure. Both rows of a column show log1p of counts per 10,000, each on its own color scale, because
    averaging over references narrows the range; r is the correlation over spots.

    Raises
    ------
    KeyError
        There is no prediction, or a gene is not measured or not predicted.
    """
    import matplotlib.pyplot as plt

    genes = [genes] if isinstance(genes, str) else list(genes)
    predicted = _predicted(adata, key, genes)
    measured = _measured(adata, layer, genes)
    xy = np.asarray(require(adata, "obsm", spatial_key, "what gives the coordinates"))[:, :2]
    known = np.isfinite(predicted).all(axis=1)
    r = gene_pearson(measured[known], predicted[known])
    figure, axes = plt.subplots(2, len(genes), figsize=(3.6 * len(genes), 6.4), layout="constrained", squeeze=False)
    for row, (name, values) in enumerate({"measured": measured, "predicted": predicted}.items()):
        for column, gene in enumerate(genes):
            ax = axes[row, column]
            points = ax.scatter(*xy.T, c=values[:, column], s=size or _size(len(xy)), linewidths=0, cmap="magma")
            figure.colorbar(points, ax=ax, shrink=0.7, label="log1p(counts per 10,000)")
            ax.set(title=f"{gene}, {name}" + (f" (r = {r[column]:.2f})" if row else ""), aspect="equal")
            ax.set(xticks=[], yticks=[])
            _frame(ax, xy)
    return figure


def _predicted(adata: "AnnData", key: str, genes: list[str]) -> np.ndarray:
    values = require(adata, "obsm", key, "stp.tl.predict_expression(adata, reference)")
    names = [str(name) for name in adata.uns[key]["genes"]]
    if missing := [gene for gene in genes if gene not in names]:
        raise KeyError(f"{missing} were not predicted; choose from adata.uns[{key!r}]['genes']")
    return np.asarray(values)[:, [names.index(gene) for gene in genes]]


def _measured(adata: "AnnData", layer: str | None, genes: list[str]) -> np.ndarray:
    columns = adata.var_names.get_indexer(genes)
    if (columns < 0).any():
        raise KeyError(f"{genes} are not all measured; choose from adata.var_names")
    return np.concatenate([block[:, columns].toarray() for block in log_normalized_blocks(adata, layer)])
