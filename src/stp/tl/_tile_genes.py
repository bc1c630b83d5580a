"""Predicted genes, or gene sets, of the tiles of each slide of a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview, warn
from stp.data.feature_files import open_features
from stp.genes.gene_choice import locate_in_prediction
from stp.images.grid import grid_cells
from stp.tables import keys
from stp.tables.cohort import BagSource
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData

MAKER = (
    "stp.tl.predict_expression on the table of each tile store, and write it there with "
    "stp.io.write_results"
)


@dataclass(frozen=True)
class GeneColumns:
    """The genes or gene sets that are read from tile tables, and where they were predicted.

    Parameters
    ----------
    names
        Names of the genes or gene sets.
    groups
        Positions of the genes of each among the predicted genes.
    n_predicted
        Number of predicted genes.
    has_far
        Whether tiles have the flag that they are far from all references.
    model
        Record of the model that made the embeddings of the prediction.
    units
        Units of the prediction.
    """

    names: list[str]
    groups: list[np.ndarray]
    n_predicted: int
    has_far: bool
    model: dict[str, Any] | None
    units: str

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the genes, or the mean of each set (n_tiles, n_names)."""
        if all(len(group) == 1 for group in self.groups):
            return values[:, np.concatenate(self.groups)]
        return np.column_stack([values[:, group].mean(axis=1) for group in self.groups])


@dataclass(frozen=True)
class TileGenes:
    """Predicted genes of the tiles of one slide, in the order of its features.

    Parameters
    ----------
    values
        Genes or gene sets (n_tiles, n_names).
    is_near
        Whether a tile has a prediction and is not far from all references (n_tiles,).
    is_far
        Whether a tile is far (n_tiles,).
    cells
        Row and column (n_tiles, 2) of each tile on the grid.
    """

    values: np.ndarray
    is_near: np.ndarray
    is_far: np.ndarray
    cells: np.ndarray


def open_tile_genes(
    sources: Sequence[BagSource], key: str, gene_sets: Mapping[str, Sequence[str]] | None
) -> GeneColumns:
    """Check that all slides have the same predicted genes, before any work.

    Raises
    ------
    KeyError
        A slide has no prediction or no places, or no gene of the sets was predicted.
    ValueError
        Slides are files without tables, or predictions differ.
    """
    files = [source.slide for source in sources if not source.path.is_dir()]
    if files:
        raise ValueError(
            f"{count(len(files), 'slide')} of the cohort are feature files, which have no "
            f"predicted genes: {preview(files)}; write tile stores with stp.io.write_tiles, "
            f"run {MAKER}"
        )
    tables = {source.slide: get_table(source.path, source.table_key) for source in sources}
    lacking = [slide for slide, table in tables.items() if not _has_prediction(table, key)]
    if lacking:
        raise KeyError(
            f"{count(len(lacking), 'slide')} have no obsm[{key!r}]: {preview(lacking)}; run {MAKER}"
        )
    no_places = [slide for slide, table in tables.items() if keys.SPATIAL not in table.obsm]
    if no_places:
        raise KeyError(
            f"{count(len(no_places), 'slide')} have no obsm['spatial']: {preview(no_places)}; a "
            "map needs the places of its tiles"
        )
    return _only_columns(tables, key, gene_sets)


def read_tile_genes(source: BagSource, key: str, columns: GeneColumns) -> TileGenes:
    """Read the predicted genes of one slide, in the order of its features."""
    table = get_table(source.path, source.table_key)
    file = open_features(source.path, use_rep=source.use_rep, table_key=source.table_key)
    order = file.order()
    if order is None:
        order = np.arange(table.n_obs)
    predicted = np.asarray(table.obsm[key], np.float32)[order]
    is_far = np.zeros(table.n_obs, bool)
    if columns.has_far:
        is_far = table.obs[keys.far(key)].to_numpy(dtype=bool)[order]
    has_values = np.isfinite(predicted).all(axis=1)
    centers = np.asarray(table.obsm[keys.SPATIAL], np.float64)[order]
    cells = grid_cells(centers, f"tiles of the slide {source.slide!r}")
    return TileGenes(columns.of(predicted), has_values & ~is_far, is_far, cells)


def group_genes(
    names: Sequence[str], gene_sets: Mapping[str, np.ndarray], label: str
) -> tuple[list[str], list[np.ndarray]]:
    """Return the sets of which a gene is there, with their positions; warn of the others.

    Raises
    ------
    KeyError
        No set has a gene.
    """
    groups = {name: positions[positions >= 0] for name, positions in gene_sets.items()}
    empty = [name for name, positions in groups.items() if not len(positions)]
    if len(empty) == len(groups):
        raise KeyError(
            f"no gene of {count(len(groups), 'gene set')} is among the genes of {label}, e.g. "
            f"{preview(names)}; pass gene_sets= with such names"
        )
    if empty:
        warn(
            f"{count(len(empty), 'gene set')} have no gene among those of {label} and are left "
            f"out: {preview(empty)}"
        )
    usable = {name: np.unique(positions) for name, positions in groups.items() if len(positions)}
    return list(usable), list(usable.values())


def _has_prediction(table: "AnnData", key: str) -> bool:
    return key in table.obsm and "genes" in table.uns.get(key, {})


def _only_columns(
    tables: Mapping[str, "AnnData"], key: str, gene_sets: Mapping[str, Sequence[str]] | None
) -> GeneColumns:
    """Return the predicted genes that all slides share."""
    first_slide, first = next(iter(tables.items()))
    facts = {slide: _describe(table, key) for slide, table in tables.items()}
    for slide, fact in facts.items():
        for part, value in fact.items():
            if value != facts[first_slide][part]:
                raise ValueError(
                    f"slides {first_slide!r} and {slide!r} have obsm[{key!r}] with different "
                    f"{part}; run {MAKER}, with the same arguments"
                )
    details = first.uns[key]
    names = [str(name) for name in details["genes"]]
    groups = [np.array([number]) for number in range(len(names))]
    labels = names
    if gene_sets is not None:
        positions = {
            name: np.array(locate_in_prediction(details, list(genes)))
            for name, genes in gene_sets.items()
        }
        labels, groups = group_genes(names, positions, f"obsm[{key!r}]")
    model = details.get("model")
    return GeneColumns(
        labels,
        groups,
        len(names),
        keys.far(key) in first.obs,
        dict(model) if model else None,
        str(details.get("units", "")),
    )


def _describe(table: "AnnData", key: str) -> dict[str, Any]:
    """Return what must not differ between slides."""
    details = table.uns[key]
    return {
        "genes": [str(name) for name in details["genes"]],
        "units": str(details.get("units", "")),
        "models": (details.get("model") or {}).get("digest"),
        "flags of far tiles": keys.far(key) in table.obs,
    }
