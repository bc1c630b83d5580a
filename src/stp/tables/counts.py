"""Read raw counts in blocks of rows, from memory, from disk or from Dask; what is no count is an error."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BLOCK_ROWS = 4096  # rows held in memory at a time
CHECKED_ROWS = 256


def get_counts(adata: "AnnData", layer: str | None = None) -> Any:
    """Return the raw counts, of any kind that AnnData holds, after looking at the first rows of them."""
    check_counts(adata, layer)
    return by_rows(layer_of(adata, layer))


def check_counts(adata: "AnnData", layer: str | None = None) -> None:
    """Refuse a table or layer whose first rows are no raw counts."""
    wrong = _first_not_a_count(layer_of(adata, layer))
    if wrong is not None:
        raise ValueError(_counts_message(adata, layer, wrong))


def layer_of(adata: "AnnData", layer: str | None) -> Any:
    """Return X or a layer, as it is."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"no layer {layer!r}; pass layer= one of {list(adata.layers)} or None for X")
    X = adata.X if layer is None else adata.layers[layer]
    if X is None:
        raise ValueError(f"the table has no X; pass layer= one of {list(adata.layers)}")
    return X


def by_rows(X: Any) -> Any:
    """Return counts whose blocks of rows are at hand: CSC as CSR in memory, Dask with all columns in a chunk."""
    if is_lazy(X):
        return X.rechunk({1: -1})
    if getattr(X, "format", None) != "csc":
        return X
    return (X if hasattr(X, "tocsr") else X.to_memory()).tocsr()


def is_lazy(X: Any) -> bool:
    """Tell whether this is a Dask array."""
    return hasattr(X, "dask")


def row_blocks(X: Any, block_rows: int = BLOCK_ROWS) -> Iterator["csr_matrix"]:
    """Yield blocks of rows as CSR, as they are stored and unchecked; Dask by its own chunks, CSR in memory whole."""
    from scipy.sparse import issparse

    if issparse(X):
        yield X
    elif is_lazy(X):
        yield from (as_csr(X.blocks[i].compute()) for i in range(X.numblocks[0]))
    else:
        # Of dense rows, the coordinates of what is not zero need up to four times as much as they do.
        step = block_rows if hasattr(X, "format") else -(-block_rows // 4)
        yield from (as_csr(X[start : start + step]) for start in range(0, X.shape[0], step))


def chosen_blocks(
    X: Any, rows: np.ndarray | None = None, block_rows: int = BLOCK_ROWS
) -> Iterator["csr_matrix"]:
    """Yield canonical CSR blocks of rows, sorted and without duplicates; of `rows` alone, ascending, where given."""
    for start in range(0, X.shape[0], block_rows):
        edges = (start, start + block_rows)
        chosen = None if rows is None else rows[slice(*np.searchsorted(rows, edges))] - start
        if chosen is None or len(chosen):  # a block of which nothing is wanted is not read
            block = X[start : start + block_rows]
            yield _to_csr(block if chosen is None else block[chosen])


def count_blocks(
    adata: "AnnData",
    layer: str | None = None,
    rows: np.ndarray | None = None,
    *,
    block_rows: int = BLOCK_ROWS,
) -> Iterator["csr_matrix"]:
    """Yield the raw counts as canonical CSR blocks of rows, every value checked; of `rows` alone, where given."""
    for block in chosen_blocks(get_counts(adata, layer), rows, block_rows):
        wrong = _not_a_count(block.data)
        if wrong is not None:
            raise ValueError(_counts_message(adata, layer, wrong))
        yield block


def log_normalized_blocks(
    adata: "AnnData", layer: str | None = None, rows: np.ndarray | None = None
) -> Iterator["csr_matrix"]:
    """Yield log1p of counts per 10,000 of each spot, block by block; spots without counts stay zero."""
    for block in count_blocks(adata, layer, rows):
        yield log_normalized(block, np.asarray(block.sum(axis=1), dtype=float).ravel())


def log_normalized(counts: "csr_matrix", total: np.ndarray) -> "csr_matrix":
    """Return log1p of counts per 10,000, given the counts of each spot over all genes; counts may be overwritten."""
    counts.data = counts.data * np.repeat(
        1e4 / np.where(total > 0, total, 1), np.diff(counts.indptr)
    )
    return counts.log1p()


def holds_counts(X: Any) -> bool:
    """Tell whether the first rows are raw counts."""
    return _first_not_a_count(X) is None


def gene_sums(block: Any, index: np.ndarray, n_genes: int) -> np.ndarray:
    """Sum a block of rows: UMIs of each gene and the number of spots that detect it, int64 (2, n_genes).

    `index` gives the gene of each column, or -1; columns of one gene are summed first.
    """
    from scipy.sparse import csr_matrix

    counts = _to_csr(block)
    wrong = _not_a_count(counts.data)
    if wrong is not None:
        raise ValueError(not_raw(wrong))
    columns = np.flatnonzero(index >= 0)
    merge = csr_matrix(
        (np.ones(len(columns), np.int64), (columns, index[columns])), (len(index), n_genes)
    )
    genes = counts.astype(np.int64) @ merge
    # Integers: the partition into blocks cannot change the sums.
    return np.stack([np.asarray(genes.sum(axis=0)).ravel(), genes.getnnz(axis=0).astype(np.int64)])


def sum_genes(X: Any, index: np.ndarray, n_genes: int) -> np.ndarray:
    """Sum counts over all rows as `gene_sums` does over a block, a block at a time; Dask where and when it wants to."""
    if not is_lazy(X):
        blocks = (X[start : start + BLOCK_ROWS] for start in range(0, X.shape[0], BLOCK_ROWS))
        return sum(
            (gene_sums(block, index, n_genes) for block in blocks), np.zeros((2, n_genes), np.int64)
        )
    chunks = ((1,) * X.numblocks[0], (2,), (n_genes,))
    sums = X.map_blocks(
        lambda block: gene_sums(block, index, n_genes)[None],
        chunks=chunks,
        dtype=np.int64,
        drop_axis=1,
        new_axis=[1, 2],
        meta=np.empty((0, 0, 0), np.int64),
    )
    return sums.sum(axis=0).compute()


def as_csr(block: Any, *, copy: bool = False) -> "csr_matrix":
    """Return a block of counts as CSR."""
    from scipy.sparse import csr_matrix

    half = getattr(block, "dtype", None) == np.float16  # which scipy does not know
    return csr_matrix(block.astype(np.float32) if half else block, copy=copy)


def _to_csr(block: Any) -> "csr_matrix":
    matrix = as_csr(block.compute() if is_lazy(block) else block, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _not_a_count(values: np.ndarray) -> float | None:
    """Return the first value that is no count, if there is one."""
    right = (values >= 0) & (values < np.inf) & (values == np.floor(values))
    return None if right.all() else float(values[right.argmin()])


def _first_not_a_count(X: Any) -> float | None:
    """Look at the first rows as they are stored: bringing them into order would take longer than the check."""
    from scipy.sparse import issparse

    n = min(CHECKED_ROWS, X.shape[0])
    if issparse(X) and X.format == "csr":
        return _not_a_count(X.data[: X.indptr[n]])
    return _not_a_count(as_csr(X[:n].compute() if is_lazy(X) else X[:n]).data)


def not_raw(wrong: float, where: str = "the table") -> str:
    """Say that a value is no count."""
    return f"{where} holds {wrong:.4g}, which is no raw count (is it normalized, log-transformed or scaled?)"


def _counts_message(adata: "AnnData", layer: str | None, wrong: float) -> str:
    layers = [name for name in adata.layers if holds_counts(adata.layers[name])]
    remedy = f"pass layer={layers[0]!r}" if layers else "start from the raw counts"
    return f"{not_raw(wrong, 'X' if layer is None else f'layer {layer!r}')}; {remedy}"
