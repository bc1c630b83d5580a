"""Figures in the manner of the paper: embeddings, clusters, correlated genes, and ablations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.lines import Line2D
from scipy.cluster.hierarchy import leaves_list, linkage

import stp
from benchmarks.accuracy.clusters import NO_LABEL
from benchmarks.accuracy.expression import normalize
from benchmarks.measure import Row
from stp.pl import _colors
from stp.tl._leiden import RESOLUTION
from stp.workflows.demo import cluster_colors

if TYPE_CHECKING:
    import spatialdata
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"X_stp_genes": "genes", "X_stp_images": "images", "X_stp_fused": "both"}
N_GENES = 40  # of a matrix of correlations
PANEL_INCHES = 3.2
LEGEND_INCHES = 0.8
ROW_INCHES = 0.3  # of a table of ablations
DPI = 150
DOT_AREA = 60.0  # of a spot, in square points


def save_figure(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure as PNG and SVG, and close it."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"{name}.{suffix}", dpi=DPI, bbox_inches="tight")
    plt.close(figure)


def add_labels(tables: Sequence[anndata.AnnData], column: str) -> None:
    """Turn a column of labels into categories whose colors all tables share.

    Spots without a determined label get none.
    """
    labels = [table.obs[column].astype(str) for table in tables]
    labels = [names.where(~names.isin(NO_LABEL)) for names in labels]
    categories = sorted(pd.concat(labels).dropna().unique())
    for table, names in zip(tables, labels, strict=True):
        table.obs[column] = pd.Categorical(names, categories=categories)
        table.uns[f"{column}_colors"] = _colors.of_categories(len(categories))


def add_map(table: anndata.AnnData, use_rep: str, name: str) -> None:
    """Add a UMAP of an embedding, and Leiden clusters at the paper's resolution.

    Spots without an embedding have NaN and no cluster.
    """
    has_embedding = np.isfinite(table.obsm[use_rep]).all(axis=1)
    part = anndata.AnnData(
        obs=pd.DataFrame(index=table.obs_names[has_embedding]),
        obsm={use_rep: table.obsm[use_rep][has_embedding]},
    )
    sc.pp.neighbors(part, use_rep=use_rep, transformer="sklearn")
    sc.tl.umap(part)
    sc.tl.leiden(part, resolution=RESOLUTION, flavor="leidenalg")
    places = np.full((table.n_obs, 2), np.nan)
    places[has_embedding] = part.obsm["X_umap"]
    table.obsm[f"X_umap_{name}"] = places
    table.obs[f"leiden_{name}"] = part.obs["leiden"].reindex(table.obs_names)
    n_clusters = part.obs["leiden"].nunique()
    table.uns[f"leiden_{name}_colors"] = _colors.of_categories(n_clusters)


def add_maps(table: anndata.AnnData, label: str | None = None) -> None:
    """Fuse genes and images, and add a map and clusters of each and of both.

    Parameters
    ----------
    table
        Table with embeddings of genes and images.
    label
        Column of labels, whose colors the clusters take; by default clusters have default colors.
    """
    stp.tl.fuse(table, scale=True)
    for key, name in NAMES.items():
        add_map(table, key, name)
        if label is not None:
            clusters = table.obs[f"leiden_{name}"]
            table.uns[f"leiden_{name}_colors"] = cluster_colors(table.obs[label], clusters)


def draw_maps(panels: Mapping[str, tuple[anndata.AnnData, str]], color: str) -> "Figure":
    """Draw maps of embeddings side by side, colored by one column, with one legend.

    Parameters
    ----------
    panels
        Table and name of the map (`genes`, `images` or `both`) of each panel, by its title.
    color
        Column of labels or clusters. All tables have the same categories and colors.
    """
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(PANEL_INCHES * len(panels), PANEL_INCHES),
        layout="constrained",
        squeeze=False,
    )
    for ax, (title, (table, name)) in zip(axes.flat, panels.items(), strict=True):
        sc.pl.embedding(
            table,
            f"X_umap_{name}",
            color=color,
            ax=ax,
            show=False,
            size=DOT_AREA,
            legend_loc="none",
            na_color=_colors.MISSING,
            title=title,
        )
        ax.set(xlabel="UMAP 1", ylabel="UMAP 2")
    table = next(iter(panels.values()))[0]
    categories = table.obs[color].cat.categories
    colors = dict(zip(categories, table.uns[f"{color}_colors"], strict=True))
    if any(part.obs[color].isna().any() for part, _ in panels.values()):
        colors["no label"] = _colors.MISSING
    handles = [
        Line2D([], [], marker="o", linestyle="", color=shade, label=category)
        for category, shade in colors.items()
    ]
    figure.legend(
        handles=handles, title=_describe(color), loc="outside right center", frameon=False
    )
    return figure


def draw_clusters(slide: "spatialdata.SpatialData", label: str | None = None) -> "Figure":
    """Draw clusters of genes, images and both on the tissue, after the labels if there are any.

    Parameters
    ----------
    slide
        A slide whose table has clusters from `add_maps`.
    label
        Column of labels.
    """
    table = slide.tables["table"]
    columns = [f"leiden_{name}" for name in NAMES.values()]
    titles = [_describe(column) for column in columns]
    if label is not None:
        for number, column in enumerate(columns):
            both = table.obs[[label, column]].dropna().astype(str)
            ari = stp.metrics.clustering_scores(both[label], both[column])["ari"]
            titles[number] += f", ARI {ari:.2f}"
        columns.insert(0, label)
        titles.insert(0, _describe(label))
    figure, axes = plt.subplots(
        1,
        len(columns),
        figsize=((PANEL_INCHES + LEGEND_INCHES) * len(columns), PANEL_INCHES),
        layout="constrained",
    )
    for ax, column, title in zip(axes, columns, titles, strict=True):
        stp.pl.spots(slide, column, title=title, ax=ax)
    return figure


def _describe(column: str) -> str:
    """Return the title of a column: that of clusters names their embedding."""
    return column.replace("leiden_", "clusters of ").replace("_", " ")


def draw_gene_pairs(table: anndata.AnnData, genes: Sequence[str]) -> "Figure":
    """Draw how genes correlate with each other: measured next to predicted.

    Parameters
    ----------
    table
        Table with counts and a prediction of these genes.
    genes
        Genes to draw. Their order is that of a tree of the measured correlations.
    """
    predicted = stp.get.expression(table)[:, list(genes)].X
    correlations = {
        "measured": correlate(normalize(table, genes)),
        "predicted": correlate(predicted),
    }
    order = leaves_list(linkage(correlations["measured"], "average", optimal_ordering=True))
    names = np.asarray(genes)[order]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained", sharey=True)
    for ax, (title, matrix) in zip(axes, correlations.items(), strict=True):
        image = ax.imshow(matrix[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(title)
        ax.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=6, style="italic")
    axes[0].set_yticks(np.arange(len(names)), names, fontsize=6, style="italic")
    figure.colorbar(image, ax=axes, label="correlation of two genes over spots", shrink=0.8)
    agreement = agreement_of_pairs(*correlations.values())
    figure.suptitle(f"Correlation of the two matrices over pairs of genes: {agreement:.2f}")
    return figure


def correlate(expression: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair of genes; 0 for a gene that does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(expression, rowvar=False))


def agreement_of_pairs(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Return the correlation of two matrices over their pairs of different genes."""
    pairs = np.triu_indices(len(measured), 1)
    return float(np.corrcoef(measured[pairs], predicted[pairs])[0, 1])


def draw_ablations(
    rows: Sequence[Row], columns: Sequence[str], row_name: str = "method"
) -> "Figure":
    """Draw a table of results: a panel for each column, with the mean and range of each row.

    Parameters
    ----------
    rows
        Rows as the JSON files of results have them. Rows without any of the columns are left out.
    columns
        Columns to draw.
    row_name
        Column with the names of rows.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for column in columns:
        if column not in names:
            raise KeyError(f"no row has {column!r}; columns are {names}")
    used = [row for row in rows if any(name in row for name in columns)]
    figure, axes = plt.subplots(
        1,
        len(columns),
        figsize=(2.4 * len(columns) + 2.4, ROW_INCHES * len(used) + 0.9),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for ax, column in zip(axes.flat, columns, strict=True):
        for place, row in enumerate(used):
            if column in row:
                _draw_mean(ax, row[column], place)
        ax.set_title(column)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(np.arange(len(used)), [row[row_name] for row in used])
    axes[0, 0].invert_yaxis()
    return figure


def _draw_mean(ax: "Axes", cell: Row | float, place: int) -> None:
    """Draw a mean as a dot, and its range, if there is one, as a line."""
    mean = cell["mean"] if isinstance(cell, dict) else cell
    if isinstance(cell, dict) and "range" in cell:
        ax.plot(cell["range"], [place, place], color=_colors.BLUE, alpha=0.5, linewidth=3)
    ax.plot([mean], [place], marker="o", markersize=5, color=_colors.BLUE)
