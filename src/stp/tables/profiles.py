"""Expression profiles of measured spots: which genes, in which units, block by block."""

from collections.abc import Iterator, Mapping
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
    adata: "AnnData", layer: str | None, columns: np.ndarray, rows: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield profiles (m, n_genes) float32 of all spots, or of `rows` in ascending order, in blocks.

    `columns` (n_genes,) are those of the genes.
    Raw counts in X or a layer become log1p of counts per 10,000, with the total over all genes of
    the table. The values of any other layer are returned unchanged.
    """
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
