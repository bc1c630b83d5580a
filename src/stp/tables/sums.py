"""Exact sums of the counts of groups of rows, a block of groups at a time."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._progress import Progress
from stp.tables.counts import count_blocks, get_counts, get_layer

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BLOCK_GROUPS = 8192  # groups that are summed at a time
EXACT_FLOAT32 = 2**24  # all whole numbers up to this are float32


class RowSums(NamedTuple):
    """Summed counts of groups of rows."""

    counts: Any  # (m, n_vars) CSR, in the type of the counts if that holds the sums
    n_counts: int  # counts of all groups; those of a row in several groups count several times


def sum_rows(
    table: "AnnData",
    membership: "csr_matrix",
    layer: str | None = None,
    *,
    block_groups: int = BLOCK_GROUPS,
) -> RowSums:
    """Sum the raw counts of each group of rows in whole numbers.

    Parameters
    ----------
    table
        Table with raw counts (n_obs, n_vars).
    membership
        Groups (m, n_obs) with 1 for each of their rows.
    layer
        Layer with the raw counts; by default `X`.
    block_groups
        Number of groups that are summed at a time.

    Raises
    ------
    ValueError
        The counts are not raw.
    """
    import scipy.sparse

    dtype = get_layer(table, layer).dtype
    table, layer = _with_rows(table, layer)
    blocks = []
    n_counts = 0
    with Progress(membership.shape[0], "sum bins", "group") as progress:
        for start in range(0, membership.shape[0], block_groups):
            groups = membership[start : start + block_groups]
            rows = np.unique(groups.indices)
            parts = [part.astype(np.int64) for part in count_blocks(table, layer, rows)]
            block = groups[:, rows].astype(np.int64) @ scipy.sparse.vstack(parts, format="csr")
            block.sort_indices()
            n_counts += int(block.data.sum())
            blocks.append(_narrow(block, dtype))
            progress.update(groups.shape[0])
    return RowSums(scipy.sparse.vstack(blocks, format="csr"), n_counts)


def sum_all(table: "AnnData", rows: np.ndarray, layer: str | None = None) -> int:
    """Return the sum of the raw counts of some rows, which are in ascending order."""
    blocks = count_blocks(table, layer, rows)
    return sum(int(block.sum(dtype=np.float64)) for block in blocks) if len(rows) else 0


def _with_rows(table: "AnnData", layer: str | None) -> tuple["AnnData", str | None]:
    """Return a table whose rows are read fast, and the layer of its counts."""
    import anndata

    counts = get_counts(table, layer)
    if counts is get_layer(table, layer):
        return table, layer
    return anndata.AnnData(counts, obs=table.obs[[]]), None


def _narrow(block: "csr_matrix", dtype: np.dtype) -> "csr_matrix":
    """Return whole numbers in the type of the counts, or in a wider one if they need it."""
    highest = int(block.data.max(initial=0))
    if np.issubdtype(dtype, np.integer):
        return block.astype(dtype if highest <= np.iinfo(dtype).max else np.int64)
    return block.astype(np.float32 if highest <= EXACT_FLOAT32 else np.float64)
