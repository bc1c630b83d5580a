"""Measured and predicted expression: on the tissue, and gene by gene."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.metrics import gene_pearson
from stp.pl import _colors
from stp.pl._figure import finish, set_titles
from stp.pl._gene_ranks import draw_ranks
from stp.pl._tissue_image import Tissue, legend_cross
from stp.tables import keys
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles, units_of
from stp.tables.table import as_list, get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PREDICT_CALL = "stp.tl.predict_expression(adata, reference)"
DOT_AREA = 12  # of a gene, in square points
COLOR_BAR_INCHES = 1.0  # width of a color bar with its label


class GenePairs(NamedTuple):
    """Measured and predicted values of the same genes."""

    genes: list[str]
    measured: np.ndarray  # (n_obs, n_genes)
    predicted: np.ndarray  # (n_obs, n_genes), NaN for spots without a prediction
    is_doubtful: np.ndarray  # (n_obs,) whether the spot is far from all references, or uniform
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
    size: float = 1.0,
    cmap: "str | Colormap" = "magma",
    title: str | Sequence[str] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw measured and predicted expression of some genes on the tissue (paper, figures 6 to 9).

    Parameters
    ----------
    adata
        SpatialData with one slide, or a table with coordinates (the tissue is then not drawn). It
        needs counts and a prediction, for example of :func:`stp.tl.predict_expression`.
    genes
        Names of genes that are both predicted and measured. Each gene is a row of the figure.
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
        Size of the spots, as a factor of their default size.
    cmap
        Color map of numbers: a color map of matplotlib, or its name.
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with three panels for each gene: the measured values, the predicted values on the same
    color scale, and the predicted values on a color scale of their own range. The last is there
    because averages over references have a narrow range. `r` is the correlation over spots. A cyan
    cross marks predictions for spots that are far from all references, or have no similar one.
    Spots without a prediction are gray. Nothing is returned if the figure is shown.

    Raises
    ------
    KeyError
        There is no prediction, or a gene is not measured or not predicted.
    ValueError
        Measured and predicted values have different units, no spot has a prediction, or gene names
        are not unique.

    Examples
    --------
    >>> genes = list(adata.var_names[:2])
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=genes)
    >>> stp.pl.expression(sdata, genes)
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import Normalize

    table = get_table(adata, table_key)
    pairs = _gene_pairs(table, key, layer, as_list(genes))
    tissue = Tissue.from_data(adata, table_key, image_key, um_per_px, spatial_key)
    correlations = pairs.correlations()
    n_genes = len(pairs.genes)
    width, height = tissue.panel_inches
    figsize = (3 * (width + COLOR_BAR_INCHES), (height + 0.4) * n_genes)
    figure, axes = plt.subplots(n_genes, 3, figsize=figsize, layout="compressed", squeeze=False)
    units = pairs.units
    for i, gene in enumerate(pairs.genes):
        measured = pairs.measured[:, i]
        predicted = pairs.predicted[:, i]
        finite = predicted[pairs.has_prediction]
        scale = Normalize(measured.min(), measured.max())
        own_scale = Normalize(finite.min(), finite.max())
        r = f"r = {correlations[i]:.2f}"
        left, middle, right = axes[i]
        for ax, values, text, norm in (
            (left, measured, f"{gene}, measured", scale),
            (middle, predicted, f"{gene}, predicted ({r})", scale),
            (right, predicted, f"{gene}, predicted, own scale", own_scale),
        ):
            tissue.draw_numbers(ax, values, text, size=size, norm=norm, cmap=cmap, label=units)
        for ax in (middle, right):
            tissue.mark_spots(ax, pairs.is_doubtful)
    if n_marked := int(pairs.is_doubtful[tissue.rows].sum()):
        label = f"far from all references ({n_marked} of {len(tissue.rows)} spots)"
        handles = [legend_cross()]
        figure.legend(handles, [label], loc="outside lower right", frameon=False, fontsize="small")
    set_titles(list(axes.flat), title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def gene_correlation(
    adata: "AnnData | SpatialData",
    *,
    key: str = keys.EXPRESSION,
    layer: str | None = None,
    n_named: int = 5,
    table_key: str = "table",
    title: str | Sequence[str] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
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
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with two panels. Genes that are not measured are ignored; the title counts them.
    Nothing is returned if the figure is shown.

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
    >>> stp.pl.gene_correlation(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(adata, table_key)
    require(table, "obsm", key, PREDICT_CALL)
    names = [str(name) for name in require(table, "uns", key, PREDICT_CALL)["genes"]]
    genes = [name for name in names if name in table.var_names]
    if not genes:
        raise ValueError(
            f"no predicted gene is measured: {names[:3]} are not among {list(table.var_names[:3])}"
        )
    pairs = _gene_pairs(table, key, layer, genes)
    figure, (ranks, means) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    correlations = pairs.correlations()
    draw_ranks(ranks, pairs.genes, correlations, n_named, n_not_measured=len(names) - len(genes))
    mean_measured = pairs.measured[pairs.has_prediction].mean(axis=0)
    means.scatter(mean_measured, correlations, s=DOT_AREA, color=_colors.BLUE, linewidths=0)
    means.axhline(0, color="gray", linewidth=0.8)
    means.set(xlabel=f"mean measured ({pairs.units})", ylabel="correlation over spots")
    set_titles([ranks, means], title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _gene_pairs(table: "AnnData", key: str, layer: str | None, genes: list[str]) -> GenePairs:
    """Return measured and predicted values of some genes, or raise an error if one is missing."""
    values = np.asarray(require(table, "obsm", key, PREDICT_CALL))
    prediction = require(table, "uns", key, PREDICT_CALL)
    check_unique(table, "adata")
    names = [str(name) for name in prediction["genes"]]
    if not_predicted := [gene for gene in genes if gene not in names]:
        raise KeyError(
            f"{not_predicted} were not predicted; choose from adata.uns[{key!r}]['genes']"
        )
    if not_measured := [gene for gene in genes if gene not in table.var_names]:
        raise KeyError(f"{not_measured} are not measured; choose from adata.var_names")
    predicted_units = prediction.get("units", LOG_COUNTS)
    units = units_of(table, layer)
    if units != predicted_units:
        raise ValueError(
            f"predicted is {predicted_units}, measured is {units}; pass layer= what was predicted"
        )
    measured = np.concatenate(list(profiles(table, layer, genes)))
    predicted = values[:, [names.index(gene) for gene in genes]]
    pairs = GenePairs(genes, measured, predicted, _doubtful_spots(table, key), units)
    if not pairs.has_prediction.any():
        raise ValueError(
            f"obsm[{key!r}] has no prediction for any spot, because no spot has an embedding"
        )
    return pairs


def _doubtful_spots(table: "AnnData", key: str) -> np.ndarray:
    """Return whether each spot (n_obs,) is flagged as far or uniform; regressions flag none."""
    is_doubtful = np.zeros(table.n_obs, dtype=bool)
    for flag in (keys.far(key), keys.uniform(key)):
        if flag in table.obs:
            is_doubtful |= (
                table.obs[flag].eq(True).to_numpy(dtype=bool)
            )  # tables joined may lack it
    return is_doubtful
