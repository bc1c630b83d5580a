"""Measured and predicted expression on the tissue."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp.pl._figure import finish, set_titles
from stp.pl._gene_pairs import gene_pairs
from stp.pl._markers import legend_cross
from stp.pl._tissue_image import Tissue
from stp.tables import keys
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

COLOR_BAR_INCHES = 1.0  # width of a color bar with its label


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
    color scale, and the predicted values on a color scale of only their range. The last is there
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
    pairs = gene_pairs(table, key, layer, as_list(genes))
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
