"""Expression profiles of measured spots: of which genes, in which units, block by block."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.tables.counts import (
    by_rows,
    check_counts,
    chosen_blocks,
    holds_counts,
    layer_of,
    log_normalized_blocks,
)
from stp.tables.table import as_list

if TYPE_CHECKING:
    from anndata import AnnData

LOG_COUNTS = "log1p of counts per 10,000"
DENSE_ROWS = 1024  # profiles in memory at a time


def units_of(adata: "AnnData", layer: str | None) -> str:
    """Name the units of profiles: those of raw counts after normalization, else whatever the layer holds."""
    if layer is None:
        check_counts(adata)
        return LOG_COUNTS
    return LOG_COUNTS if holds_counts(layer_of(adata, layer)) else f"layer {layer!r}"


def one_unit(tables: Mapping[str, "AnnData"], layer: str | None) -> str:
    """Return the units of all tables, or refuse those that differ."""
    units = {label: units_of(table, layer) for label, table in tables.items()}
    if len(set(units.values())) > 1:
        raise ValueError(
            f"layer {layer!r} holds raw counts in some references and not in others: {units}"
        )
    return next(iter(units.values()))


def profiles(
    adata: "AnnData", layer: str | None, genes: Iterable[str], rows: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield profiles (m, n_genes) float32 of all spots, or of some in ascending order, a block at a time.

    Raw counts, of X or a layer, become log1p of counts per 10,000 over all genes; any other layer is taken as it is.
    """
    columns = adata.var_names.get_indexer(list(genes))
    if units_of(adata, layer) == LOG_COUNTS:
        blocks = log_normalized_blocks(adata, layer, rows)
    else:
        blocks = chosen_blocks(by_rows(layer_of(adata, layer)), rows)
    for block in blocks:
        chosen = block[:, columns]
        for start in range(0, chosen.shape[0], DENSE_ROWS):
            yield chosen[start : start + DENSE_ROWS].astype(np.float32).toarray()


def check_unique(adata: "AnnData", label: str) -> None:
    """Refuse a table in which several genes have one name."""
    if len(twice := adata.var_names[adata.var_names.duplicated()].unique()):
        raise ValueError(
            f"genes of {label} have names twice, e.g. {list(twice[:3])}; call its var_names_make_unique() or sum them "
            "first"
        )


def choose_genes(tables: Mapping[str, "AnnData"], genes: Any) -> np.ndarray:
    """Return the names of the genes to predict: those asked for, or the highly variable ones that all tables measure.

    Raises
    ------
    KeyError
        A gene is missing, or none is asked for or marked as highly variable.
    ValueError
        The tables share no gene, or names are not unique.
    """
    for label, table in tables.items():
        check_unique(table, label)
    shared = _shared(tables)
    if genes is None:
        return _variable(tables, shared)
    if not (names := as_list(genes)):
        raise ValueError(
            "genes is empty; name at least one, or leave it out for the highly variable ones"
        )
    if missing := [name for name in names if name not in shared]:
        where = "the reference" if len(tables) == 1 else f"all of {list(tables)}"
        raise KeyError(
            f"{len(missing)} genes are not in {where}, e.g. {missing[:3]}; choose from its var_names"
        )
    return np.asarray(names, dtype=object)


def _shared(tables: Mapping[str, "AnnData"]) -> dict[str, None]:
    """Return the genes that all tables measure, in the order of the first."""
    first, *others = (table.var_names for table in tables.values())
    shared = [name for name in first if all(name in names for names in others)]
    if not shared:
        examples = "; ".join(
            f"{label} has {list(table.var_names[:3])}" for label, table in tables.items()
        )
        raise ValueError(
            f"the references share no gene: {examples}; give all of them the same kind of names"
        )
    return dict.fromkeys(shared)


def _variable(tables: Mapping[str, "AnnData"], shared: dict[str, None]) -> np.ndarray:
    marked = [table.var for table in tables.values() if "highly_variable" in table.var]
    names = {
        name
        for var in marked
        for name in var.index[var["highly_variable"].isin([True]).to_numpy(dtype=bool)]
    }
    chosen = [name for name in shared if name in names]
    if not chosen:
        raise KeyError(
            "the reference marks no highly variable genes that all tables measure; pass genes=, "
            "or run scanpy.pp.highly_variable_genes on the reference first"
        )
    return np.asarray(chosen, dtype=object)
