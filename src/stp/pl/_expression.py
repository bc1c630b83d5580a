"""Measured and predicted expression: on the tissue, and gene by gene."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.genes.gene_choice import find_predicted, locate_in_prediction, predicted_genes
from stp.genes.gene_lookup import (
    GeneLookup,
    check_repeated_genes,
    most_similar,
    suggest_names,
)
from stp.metrics import gene_pearson
from stp.pl import _colors
from stp.pl._tissue_image import Tissue
from stp.tables import keys
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles, units_of
from stp.tables.table import as_list, get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PREDICT_CALL = "stp.tl.predict_expression(adata, reference)"


class GenePairs(NamedTuple):
    """Measured and predicted values of the same genes."""

    genes: list[str]
    measured: np.ndarray  # (n_obs, n_genes)
    predicted: np.ndarray  # (n_obs, n_genes), NaN for spots without a prediction
    units: str

    @property
    def has_prediction(self) -> np.ndarray:
        """Whether each spot (n_obs,) has a prediction."""
        return np.isfinite(self.predicted).all(axis=1)

    def correlations(self) -> np.ndarray:
        """Return the correlation of each gene (n_genes,) over spots."""
        rows = self.has_prediction
        return gene_pearson(self.measured[rows], self.predicted[rows])


def expression(
    adata: "AnnData | SpatialData",
    genes: str | Sequence[str],
    *,
    key: str = keys.EXPRESSION,
    layer: str | None = None,
    image_key: str | None = None,
    um_per_px: float | None = None,
    spatial_key: str = "spatial",
    table_key: str = "table",
    size: float | None = None,
) -> "Figure":
    """Draw measured and predicted expression of some genes on the tissue (paper, figures 6 to 9).

    Parameters
    ----------
    adata
        SpatialData with one slide, or a table with coordinates (the tissue is then not drawn). It
        needs counts and a prediction, for example of :func:`stp.tl.predict_expression`.
    genes
        Symbols or Ensembl ids of genes that are both predicted and measured. Each gene is a row of
        the figure.
    key
        Name of the prediction.
    layer
        Layer with the measured values, as passed for the prediction; by default `X`.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    spatial_key
        Name of the spot coordinates in `obsm`.
    table_key
        Name of the table in a SpatialData.
    size
        Size of the spots, as a factor of their default size. Without an image, the area of a marker
        in square points.

    Returns
    -------
    A figure with three panels for each gene: the measured values, the predicted values on the same
    color scale, and the predicted values on a color scale of their own range. The last is there
    because averages over references have a narrow range. `r` is the correlation over spots.

    Raises
    ------
    KeyError
        There is no prediction, or a gene is not measured or not predicted.
    ValueError
        Measured and predicted values have different units, or gene names are not unique.

    Examples
    --------
    >>> genes = list(adata.var_names[:2])
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=genes)
    >>> figure = stp.pl.expression(sdata, genes)
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import Normalize

    table = get_table(adata, table_key)
    pairs = _gene_pairs(table, key, layer, as_list(genes))
    tissue = Tissue.from_data(adata, table_key, image_key, um_per_px, spatial_key)
    correlations = pairs.correlations()
    n_genes = len(pairs.genes)
    figure, axes = plt.subplots(
        n_genes, 3, figsize=(12, 3.8 * n_genes), layout="constrained", squeeze=False
    )
    for i, gene in enumerate(pairs.genes):
        measured = pairs.measured[:, i]
        predicted = pairs.predicted[:, i]
        finite = predicted[pairs.has_prediction]
        scale = Normalize(measured.min(), measured.max())
        own_scale = Normalize(finite.min(), finite.max())
        r = f"r = {correlations[i]:.2f}"
        left, middle, right = axes[i]
        tissue.draw(left, measured, f"{gene}, measured", size=size, norm=scale)
        tissue.draw(middle, predicted, f"{gene}, predicted ({r})", size=size, norm=scale)
        tissue.draw(right, predicted, f"{gene}, predicted, own scale", size=size, norm=own_scale)
    figure.supxlabel(pairs.units, fontsize="small")
    return figure


def gene_correlation(
    adata: "AnnData | SpatialData",
    *,
    key: str = keys.EXPRESSION,
    layer: str | None = None,
    n_named: int = 5,
    table_key: str = "table",
) -> "Figure":
    """Draw how well each gene is predicted: its correlation by rank and by mean expression.

    Parameters
    ----------
    adata
        Table with counts and a prediction.
    key
        Name of the prediction.
    layer
        Layer with the measured values, as passed for the prediction; by default `X`.
    n_named
        Number of best and of worst genes that are named.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A figure with two panels. Genes that are not measured are ignored; the title counts them.

    Raises
    ------
    KeyError
        There is no prediction.
    ValueError
        No predicted gene is measured, measured and predicted values have different units, or gene
        names are not unique.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names[:9])
    >>> figure = stp.pl.gene_correlation(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(adata, table_key)
    require(table, "obsm", key, PREDICT_CALL)
    prediction = require(table, "uns", key, PREDICT_CALL)
    names, _ = predicted_genes(prediction)
    is_measured = find_predicted(prediction, GeneLookup(table)) >= 0
    genes = [name for name, has_counts in zip(names, is_measured, strict=True) if has_counts]
    if not genes:
        raise ValueError(
            f"no predicted gene is measured: {names[:3]} are not among {list(table.var_names[:3])}"
        )
    pairs = _gene_pairs(table, key, layer, genes)
    figure, (ranks, means) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    _draw_ranks(ranks, pairs, n_named, n_not_measured=len(names) - len(genes))
    mean_measured = pairs.measured[pairs.has_prediction].mean(axis=0)
    means.scatter(mean_measured, pairs.correlations(), s=6, color="gray", linewidths=0)
    means.axhline(0, color="gray", linewidth=0.8)
    means.set(xlabel=f"mean measured ({pairs.units})", ylabel="correlation over spots")
    return figure


def _draw_ranks(ax: "Axes", pairs: GenePairs, n_named: int, n_not_measured: int) -> None:
    """Draw the correlation of each gene by rank, with the names of the best and worst genes."""
    correlations = pairs.correlations()
    order = np.argsort(-correlations, kind="stable")
    ax.plot(np.arange(1, len(order) + 1), correlations[order], color="black")
    ax.axhline(0, color="gray", linewidth=0.8)
    median = np.median(correlations)
    ax.axhline(
        median, color=_colors.RED, linestyle="--", linewidth=0.8, label=f"median {median:.2f}"
    )
    ax.legend(frameon=False)
    title = f"{len(order)} genes"
    if n_not_measured:
        title += f", {n_not_measured} not measured"
    ax.set(xlabel="gene, by rank", ylabel="correlation over spots", title=title)
    lines = [f"{pairs.genes[i]} {correlations[i]:.2f}" for i in order]
    best = "\n".join(lines[:n_named])
    worst = "\n".join(lines[max(n_named, len(lines) - n_named) :])
    # The curve falls from left to right, so these two corners are empty.
    ax.text(0.97, 0.86, best, ha="right", va="top", fontsize=8, transform=ax.transAxes)
    ax.text(0.03, 0.05, worst, ha="left", va="bottom", fontsize=8, transform=ax.transAxes)


def _gene_pairs(table: "AnnData", key: str, layer: str | None, genes: list[str]) -> GenePairs:
    """Return measured and predicted values of some genes, or raise an error if one is missing."""
    values = np.asarray(require(table, "obsm", key, PREDICT_CALL))
    prediction = require(table, "uns", key, PREDICT_CALL)
    check_unique(table, "adata")
    names, _ = predicted_genes(prediction)
    measured_columns = find_predicted(prediction, GeneLookup(table))
    positions = np.array(locate_in_prediction(prediction, genes), dtype=np.int64)
    if (positions < 0).any():
        not_predicted = [gene for gene, i in zip(genes, positions, strict=True) if i < 0]
        question = suggest_names(not_predicted, lambda gene: most_similar(gene, names))
        raise KeyError(
            f"{not_predicted} were not predicted; {question}choose from adata.uns[{key!r}]['genes']"
        )
    check_repeated_genes(genes, positions)
    columns = measured_columns[positions]
    if (columns < 0).any():
        not_measured = [gene for gene, i in zip(genes, columns, strict=True) if i < 0]
        raise KeyError(f"{not_measured} are not measured; choose from adata.var_names")
    predicted_units = prediction.get("units", LOG_COUNTS)
    units = units_of(table, layer)
    if units != predicted_units:
        raise ValueError(
            f"predicted is {predicted_units}, measured is {units}; pass layer= what was predicted"
        )
    measured = np.concatenate(list(profiles(table, layer, columns)))
    shown = [names[position] for position in positions]
    return GenePairs(shown, measured, values[:, positions], units)
