"""Expression profiles of measured spots: which genes, in which units, block by block."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stp.tables.counts import (
    arrange_by_rows,
    check_counts,
    get_layer,
    has_counts,
    log_normalized_blocks,
    select_blocks,
)
from stp.tables.features import find_genes
from stp.tables.table import as_list

if TYPE_CHECKING:
    from anndata import AnnData

LOG_COUNTS = "log1p of counts per 10,000"
DENSE_ROWS = 1024  # profiles that are in memory at a time


def units_of(adata: "AnnData", layer: str | None) -> str:
    """Return the units of profiles: log counts for raw counts, else the name of the layer."""
    if layer is None:
        check_counts(adata)
        return LOG_COUNTS
    return LOG_COUNTS if has_counts(get_layer(adata, layer)) else f"layer {layer!r}"


def one_unit(tables: Mapping[str, "AnnData"], layer: str | None) -> str:
    """Return the units that all tables share, or raise ValueError if they differ."""
    units = {label: units_of(table, layer) for label, table in tables.items()}
    if len(set(units.values())) > 1:
        raise ValueError(
            f"layer {layer!r} holds raw counts in some references and not in others: {units}"
        )
    return next(iter(units.values()))


def profiles(
    adata: "AnnData", layer: str | None, genes: Iterable[str], rows: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield profiles (m, n_genes) float32 of all spots, or of `rows` in ascending order, in blocks.

    Raw counts in X or a layer become log1p of counts per 10,000, with the total over all genes of
    the table. The values of any other layer are returned unchanged.
    """
    columns = adata.var_names.get_indexer(list(genes))
    if units_of(adata, layer) == LOG_COUNTS:
        blocks = log_normalized_blocks(adata, layer, rows)
    else:
        blocks = select_blocks(arrange_by_rows(get_layer(adata, layer)), rows)
    for block in blocks:
        expression = block[:, columns]
        for start in range(0, expression.shape[0], DENSE_ROWS):
            yield expression[start : start + DENSE_ROWS].astype(np.float32).toarray()


def check_unique(adata: "AnnData", label: str) -> None:
    """Raise ValueError if `var_names` are not unique."""
    duplicates = adata.var_names[adata.var_names.duplicated()].unique()
    if len(duplicates):
        raise ValueError(
            f"gene names of {label} are not unique, e.g. {list(duplicates[:3])}; "
            "call its var_names_make_unique() or sum the duplicates first"
        )


def choose_genes(tables: Mapping[str, "AnnData"], genes: Iterable[str] | None) -> np.ndarray:
    """Return the names of the genes to predict.

    These are `genes`, or else the highly variable genes that all tables measure.

    Raises
    ------
    KeyError
        A gene is missing, or no gene is named and none is marked as highly variable.
    ValueError
        The tables share no gene, `genes` is empty, or names are not unique.
    """
    for label, table in tables.items():
        check_unique(table, label)
    shared = _shared_genes(tables)
    if genes is None:
        return _highly_variable_genes(tables, shared)
    names = as_list(genes)
    if not names:
        raise ValueError(
            "genes is empty; name at least one, or leave it out for the highly variable ones"
        )
    missing = [name for name in names if name not in shared]
    if missing:
        label = "the reference" if len(tables) == 1 else f"all of {list(tables)}"
        raise KeyError(
            f"{len(missing)} genes are not in {label}, e.g. {missing[:3]}; "
            "choose from its var_names"
        )
    return np.asarray(names, dtype=object)


def _shared_genes(tables: Mapping[str, "AnnData"]) -> dict[str, None]:
    """Return the genes that all tables measure, in the order of the first table."""
    first, *others = (table.var_names[find_genes(table)] for table in tables.values())
    shared = [name for name in first if all(name in names for names in others)]
    if not shared:
        examples = "; ".join(
            f"{label} has {list(table.var_names[:3])}" for label, table in tables.items()
        )
        raise ValueError(
            f"the references share no gene: {examples}; give all of them the same kind of names"
        )
    return dict.fromkeys(shared)


def _highly_variable_genes(
    tables: Mapping[str, "AnnData"], shared: Mapping[str, None]
) -> np.ndarray:
    """Return the shared genes that at least one table marks as highly variable."""
    variable: set[str] = set()
    for table in tables.values():
        if "highly_variable" in table.var:
            is_variable = table.var["highly_variable"].isin([True]).to_numpy(dtype=bool)
            variable.update(table.var_names[is_variable])
    names = [name for name in shared if name in variable]
    if not names:
        raise KeyError(
            "the reference marks no highly variable genes that all tables measure; pass genes=, "
            "or run scanpy.pp.highly_variable_genes on the reference first"
        )
    return np.asarray(names, dtype=object)
