"""Predicted beside measured expression: on the tissue, and gene by gene."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.metrics import gene_pearson
from stp.pl import _colors
from stp.pl._tissue import Tissue
from stp.tables import keys
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles, units_of
from stp.tables.table import as_list, get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

# Where the names of genes stand in a panel whose curve falls from left to right.
BEST = {"x": 0.97, "y": 0.86, "ha": "right", "va": "top", "fontsize": 8}
WORST = {"x": 0.03, "y": 0.05, "ha": "left", "va": "bottom", "fontsize": 8}


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
    """Draw measured beside predicted expression of some genes, on the tissue (paper, figures 6 to 9).

    Parameters
    ----------
    adata
        SpatialData with one slide, or a table with coordinates (then without the tissue), with counts and a
        prediction of :func:`stp.tl.predict_expression` or one of its kind.
    genes
        Predicted genes that are also measured, by name: a row each.
    key
        Name of the prediction.
    layer
        Layer of what was measured, as the prediction read it from its references; X by default.
    image_key, um_per_px
        Image and its scale; resolved as in :func:`stp.tl.embed_images`.
    spatial_key
        Coordinates in `obsm`, where there is no image.
    table_key
        Table of a SpatialData.
    size
        Of spots: relative to their distance, or without an image the area of a marker in points squared.

    Returns
    -------
    The figure: what was measured, and the prediction on the color scale of what was measured and on its own, because
    averaging over references narrows the range; r is the correlation over spots.

    Raises
    ------
    KeyError
        There is no prediction, or a gene is not measured or not predicted.
    ValueError
        Measured and predicted are in different units, or names of genes are not unique.

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

    genes, table = as_list(genes), get_table(adata, table_key)
    measured, predicted, units = _both(table, key, layer, genes)
    tissue = Tissue.of(adata, table_key, image_key, um_per_px, spatial_key)
    known = np.isfinite(predicted).all(axis=1)
    r = gene_pearson(measured[known], predicted[known])
    figure, axes = plt.subplots(
        len(genes), 3, figsize=(12, 3.8 * len(genes)), layout="constrained", squeeze=False
    )
    for i, (gene, row) in enumerate(zip(genes, axes, strict=True)):
        fixed = Normalize(measured[:, i].min(), measured[:, i].max())
        own = Normalize(predicted[known, i].min(), predicted[known, i].max())
        tissue.draw(row[0], measured[:, i], size, norm=fixed, title=f"{gene}, measured")
        tissue.draw(
            row[1], predicted[:, i], size, norm=fixed, title=f"{gene}, predicted (r = {r[i]:.2f})"
        )
        tissue.draw(row[2], predicted[:, i], size, norm=own, title=f"{gene}, predicted, own scale")
    figure.supxlabel(units, fontsize="small")
    return figure


def gene_correlation(
    adata: "AnnData | SpatialData",
    *,
    key: str = keys.EXPRESSION,
    layer: str | None = None,
    n_named: int = 5,
    table_key: str = "table",
) -> "Figure":
    """Draw how well each gene is predicted: its correlation over spots, by rank and beside its mean.

    Parameters
    ----------
    adata
        Table with counts and a prediction.
    key
        Name of the prediction.
    layer
        Layer of what was measured, as the prediction read it from its references; X by default.
    n_named
        Genes that are named at either end.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The figure. Genes that are not measured are left out, and counted in the title.

    Raises
    ------
    KeyError
        There is no prediction.
    ValueError
        No predicted gene is measured, measured and predicted are in different units, or names of genes are not unique.

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
    require(table, "obsm", key, "stp.tl.predict_expression(adata, reference)")
    names = [
        str(name)
        for name in require(table, "uns", key, "stp.tl.predict_expression(adata, reference)")[
            "genes"
        ]
    ]
    genes = [name for name in names if name in table.var_names]
    if not genes:
        raise ValueError(
            f"no predicted gene is measured: {names[:3]} are not among {list(table.var_names[:3])}"
        )
    measured, predicted, units = _both(table, key, layer, genes)
    known = np.isfinite(predicted).all(axis=1)
    r = gene_pearson(measured[known], predicted[known])
    order = np.argsort(-r, kind="stable")
    figure, (ranks, means) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    ranks.plot(np.arange(1, len(r) + 1), r[order], color="black")
    ranks.axhline(0, color="gray", linewidth=0.8)
    ranks.axhline(
        np.median(r),
        color=_colors.RED,
        linestyle="--",
        linewidth=0.8,
        label=f"median {np.median(r):.2f}",
    )
    ranks.legend(frameon=False)
    absent = f", {len(names) - len(genes)} not measured" if len(genes) < len(names) else ""
    ranks.set(
        xlabel="gene, by rank", ylabel="correlation over spots", title=f"{len(genes)} genes{absent}"
    )
    means.scatter(measured[known].mean(axis=0), r, s=6, color="gray", linewidths=0)
    means.axhline(0, color="gray", linewidth=0.8)
    means.set(xlabel=f"mean measured ({units})", ylabel="correlation over spots")
    for corner, chosen in (
        (BEST, order[:n_named]),
        (WORST, order[max(n_named, len(order) - n_named) :]),
    ):
        ranks.text(
            s="\n".join(f"{genes[i]} {r[i]:.2f}" for i in chosen),
            transform=ranks.transAxes,
            **corner,
        )
    return figure


def _both(
    table: "AnnData", key: str, layer: str | None, genes: list[str]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return measured and predicted (n_obs, n_genes), and their units."""
    values = require(table, "obsm", key, "stp.tl.predict_expression(adata, reference)")
    details: dict[str, Any] = table.uns[key]
    check_unique(table, "adata")
    names = [str(name) for name in details["genes"]]
    if missing := [gene for gene in genes if gene not in names]:
        raise KeyError(f"{missing} were not predicted; choose from adata.uns[{key!r}]['genes']")
    if missing := [gene for gene in genes if gene not in table.var_names]:
        raise KeyError(f"{missing} are not measured; choose from adata.var_names")
    predicted_units, units = details.get("units", LOG_COUNTS), units_of(table, layer)
    if units != predicted_units:
        raise ValueError(
            f"predicted is {predicted_units}, measured is {units}; pass layer= what was predicted"
        )
    predicted = np.asarray(values)[:, [names.index(gene) for gene in genes]]
    return np.concatenate(list(profiles(table, layer, genes))), predicted, units
