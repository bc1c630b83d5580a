"""How well each gene is predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp.genes.gene_choice import find_predicted, predicted_genes
from stp.genes.gene_lookup import (
    GeneLookup,
)
from stp.pl import _colors
from stp.pl._figure import finish, set_titles
from stp.pl._gene_pairs import PREDICT_CALL, gene_pairs
from stp.pl._gene_ranks import draw_ranks
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

DOT_AREA = 12  # of a gene, in square points


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
    prediction = require(table, "uns", key, PREDICT_CALL)
    names, _ = predicted_genes(prediction)
    is_measured = find_predicted(prediction, GeneLookup(table)) >= 0
    genes = [name for name, has_counts in zip(names, is_measured, strict=True) if has_counts]
    if not genes:
        raise ValueError(
            f"no predicted gene is measured: {names[:3]} are not among {list(table.var_names[:3])}"
        )
    pairs = gene_pairs(table, key, layer, genes)
    figure, (ranks, means) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    correlations = pairs.correlations()
    draw_ranks(ranks, pairs.genes, correlations, n_named, n_not_measured=len(names) - len(genes))
    mean_measured = pairs.measured[pairs.has_prediction].mean(axis=0)
    means.scatter(mean_measured, correlations, s=DOT_AREA, color=_colors.BLUE, linewidths=0)
    means.axhline(0, color="gray", linewidth=0.8)
    means.set(xlabel=f"mean measured ({pairs.units})", ylabel="correlation over spots")
    set_titles([ranks, means], title)
    return finish(figure, show=show, save=save, return_fig=return_fig)
