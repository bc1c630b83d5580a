"""Raw counts in blocks of rows, from memory, from disk or from Dask, with a check of each value."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._progress import Progress
from stp.tables.features import find_genes
from stp.tables.whole_counts import (
    find_non_count,
    is_whole,
    not_raw,
    not_whole_error,
    round_block,
    warn_about_rounding,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BLOCK_ROWS = 4096  # rows that are in memory at a time
CHECKED_ROWS = 256


def get_counts(adata: "AnnData", layer: str | None = None) -> Any:
    """Return the raw counts in any matrix type of AnnData, after a check of the first rows."""
    check_counts(adata, layer)
    return arrange_by_rows(get_layer(adata, layer))


def check_counts(adata: "AnnData", layer: str | None = None) -> None:
    """Raise ValueError if the first rows of a table or layer are not raw counts."""
    value = _find_non_count_in_first_rows(get_layer(adata, layer))
    if value is not None:
        raise ValueError(_counts_message(adata, layer, value))


def get_layer(adata: "AnnData", layer: str | None) -> Any:
    """Return X or a layer without any change."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"no layer {layer!r}; pass layer= one of {list(adata.layers)} or None for X")
    X = adata.X if layer is None else adata.layers[layer]
    if X is None:
        raw = "pass adata.raw.to_adata(), or " if _has_raw_counts(adata) else ""
        raise ValueError(f"the table has no X; {raw}pass layer= one of {list(adata.layers)}")
    return X


def arrange_by_rows(X: Any) -> Any:
    """Return counts of which rows can be read fast.

    CSC becomes CSR in memory. A Dask array gets chunks that hold all columns.
    """
    if is_lazy(X):
        return X.rechunk({1: -1})
    if getattr(X, "format", None) != "csc":
        return X
    in_memory = X if hasattr(X, "tocsr") else X.to_memory()
    return in_memory.tocsr()


def is_lazy(X: Any) -> bool:
    """Return whether this is a Dask array."""
    return hasattr(X, "dask")


def row_blocks(X: Any, block_rows: int = BLOCK_ROWS) -> Iterator["csr_matrix"]:
    """Yield blocks of rows as CSR, in stored order and unchecked.

    The blocks of a Dask array are its chunks. A sparse matrix in memory is one block.
    """
    from scipy.sparse import issparse

    if issparse(X):
        yield X
    elif is_lazy(X):
        for number in range(X.numblocks[0]):
            yield as_csr(X.blocks[number].compute())
    else:
        # In CSR, dense rows without zeros need up to four times as much memory.
        step = block_rows if hasattr(X, "format") else -(-block_rows // 4)
        for start in range(0, X.shape[0], step):
            yield as_csr(X[start : start + step])


def select_blocks(
    X: Any, rows: np.ndarray | None = None, block_rows: int = BLOCK_ROWS
) -> Iterator["csr_matrix"]:
    """Yield canonical CSR blocks of all rows, or of `rows` in ascending order.

    Columns of a canonical block are sorted, occur once per row and store no zero.
    """
    for start in range(0, X.shape[0], block_rows):
        stop = start + block_rows
        if rows is None:
            yield _to_canonical_csr(X[start:stop])
            continue
        first, last = np.searchsorted(rows, (start, stop))
        if first < last:  # a block without a selected row is not read
            yield _to_canonical_csr(X[start:stop][rows[first:last] - start])


def count_blocks(
    adata: "AnnData",
    layer: str | None = None,
    rows: np.ndarray | None = None,
    *,
    block_rows: int = BLOCK_ROWS,
) -> Iterator["csr_matrix"]:
    """Yield the raw counts as `select_blocks` does; ValueError if a value is not a count."""
    has_warned = False
    for block in select_blocks(get_counts(adata, layer), rows, block_rows):
        value = find_non_count(block.data)
        if value is not None:
            raise ValueError(_counts_message(adata, layer, value))
        if not is_whole(block.data):
            if not has_warned:
                warn_about_rounding()
                has_warned = True
            block = round_block(block)
            block.eliminate_zeros()
        yield block


def log_normalized_blocks(
    adata: "AnnData", layer: str | None = None, rows: np.ndarray | None = None
) -> Iterator["csr_matrix"]:
    """Yield log1p of counts per 10,000 block by block; spots without counts stay zero.

    The total of a spot is that of its genes, without antibodies and control probes.
    """
    is_gene = find_genes(adata)
    for block in count_blocks(adata, layer, rows):
        genes = block if is_gene.all() else block[:, is_gene]
        yield log_normalized(block, np.asarray(genes.sum(axis=1), dtype=float).ravel())


def log_normalized(counts: "csr_matrix", total: np.ndarray) -> "csr_matrix":
    """Return log1p of counts per 10,000, and overwrite `counts`.

    `total` (n,) is the sum of each spot over all genes, also those that `counts` lacks.
    """
    factor = 1e4 / np.where(total > 0, total, 1)
    counts.data = counts.data * np.repeat(factor, np.diff(counts.indptr))
    return counts.log1p()


def has_counts(X: Any) -> bool:
    """Return whether the first rows are raw counts."""
    return _find_non_count_in_first_rows(X) is None


def sum_genes(
    X: Any, index: np.ndarray, n_genes: int, *, block_rows: int = BLOCK_ROWS
) -> np.ndarray:
    """Sum counts over all spots.

    Parameters
    ----------
    X
        Raw counts (n, n_columns). Dask sums its chunks in parallel; anything else is read in
        blocks.
    index
        Gene of each column (n_columns,), or -1. Columns of one gene are summed first.
    n_genes
        Number of genes.
    block_rows
        Number of rows per block.

    Returns
    -------
    int64 (2, n_genes): UMIs of each gene, and the number of spots that detect it.
    """
    if is_lazy(X):
        return _sum_genes_lazily(X, index, n_genes)
    sums = np.zeros((2, n_genes), np.int64)
    with Progress(X.shape[0], "sum counts", "spot") as progress:
        for start in range(0, X.shape[0], block_rows):
            stop = min(start + block_rows, X.shape[0])
            sums += _sum_block(X[start:stop], index, n_genes)
            progress.update(stop - start)
    return sums


def _sum_genes_lazily(X: Any, index: np.ndarray, n_genes: int) -> np.ndarray:
    sums = X.map_blocks(
        lambda block: _sum_block(block, index, n_genes)[None],
        chunks=((1,) * X.numblocks[0], (2,), (n_genes,)),
        dtype=np.int64,
        drop_axis=1,
        new_axis=[1, 2],
        meta=np.empty((0, 0, 0), np.int64),
    )
    return sums.sum(axis=0).compute()


def _sum_block(block: Any, index: np.ndarray, n_genes: int) -> np.ndarray:
    """Sum the counts of one block as `sum_genes` sums those of all rows."""
    from scipy.sparse import csr_matrix

    counts = _to_canonical_csr(block)
    if not is_whole(counts.data):
        raise not_whole_error(counts.data)
    columns = np.flatnonzero(index >= 0)
    ones = np.ones(len(columns), np.int64)
    column_to_gene = csr_matrix((ones, (columns, index[columns])), (len(index), n_genes))
    # With integers the result does not depend on the blocks.
    genes = counts.astype(np.int64) @ column_to_gene
    umis = np.asarray(genes.sum(axis=0)).ravel()
    n_spots = genes.getnnz(axis=0).astype(np.int64)
    return np.stack([umis, n_spots])


def as_csr(block: Any, *, copy: bool = False) -> "csr_matrix":
    """Return a block of counts as CSR."""
    from scipy.sparse import csr_matrix

    is_half = getattr(block, "dtype", None) == np.float16  # scipy has no sparse float16
    return csr_matrix(block.astype(np.float32) if is_half else block, copy=copy)


def _to_canonical_csr(block: Any) -> "csr_matrix":
    matrix = as_csr(block.compute() if is_lazy(block) else block, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _find_non_count_in_first_rows(X: Any) -> float | None:
    """Return the first value of the first rows that is not a count, or None."""
    from scipy.sparse import issparse

    n = min(CHECKED_ROWS, X.shape[0])
    if issparse(X) and X.format == "csr":
        # Stored values are checked as they are: to sort them would take longer than the check.
        return find_non_count(X.data[: X.indptr[n]])
    return find_non_count(as_csr(X[:n].compute() if is_lazy(X) else X[:n]).data)


def _counts_message(adata: "AnnData", layer: str | None, value: float) -> str:
    layers = [name for name in adata.layers if has_counts(adata.layers[name])]
    if layers:
        remedy = f"pass layer={layers[0]!r}"
    elif _has_raw_counts(adata):
        remedy = "adata.raw holds counts: pass adata.raw.to_adata()"
    else:
        remedy = "start from the raw counts"
    slot = "X" if layer is None else f"layer {layer!r}"
    return f"{not_raw(value, slot)}; {remedy}"


def _has_raw_counts(adata: "AnnData") -> bool:
    """Return whether `.raw` holds counts."""
    return adata.raw is not None and has_counts(adata.raw.X)
