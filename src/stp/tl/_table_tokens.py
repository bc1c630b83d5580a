"""Rank the genes of all spots of a table, from memory, from disk or with Dask."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stp._progress import Progress
from stp.genes.tokens import RankedGenes, count_genes, sum_columns
from stp.tables.counts import as_csr, is_lazy, row_blocks
from stp.tables.whole_counts import is_whole, not_whole_error

ROWS_IN_MEMORY = 8192  # spots of a matrix in memory that are ranked at a time


class TableTokens(NamedTuple):
    """Tokens of all spots of a table, and how many UMIs they are based on."""

    # (n_obs, width) uint16, padded with 0; a Dask array if the counts are one. The width is the
    # number of tokens of the spot that has the most.
    tokens: Any
    n_tokens: np.ndarray  # (n_obs,)
    umis: np.ndarray  # (n_columns,): UMIs of each column, with or without a gene


def rank_all_genes(
    counts: Any,
    rank: Callable[..., RankedGenes],
    index: np.ndarray,
    context_length: int,
    *,
    rows_in_memory: int = ROWS_IN_MEMORY,
) -> TableTokens:
    """Rank the genes of all spots.

    Parameters
    ----------
    counts
        Raw counts (n_obs, n_columns): sparse or dense in memory, on disk, or in Dask.
    rank
        `stp.genes.tokens.rank_genes` without `counts` and `context_length`.
    index
        Vocabulary index of each column (n_columns,), -1 if it has none.
    context_length
        Number of genes to keep per spot.
    rows_in_memory
        Number of spots of a sparse matrix in memory that are ranked at a time.
    """
    from scipy.sparse import issparse

    if is_lazy(counts):
        return _rank_lazily(counts, rank, index, context_length)
    if issparse(counts):
        return _rank_in_memory(counts, rank, index, context_length, rows_in_memory)
    return _rank_blocks(counts, rank, index, context_length)


def _rank_in_memory(
    counts: Any,
    rank: Callable[..., RankedGenes],
    index: np.ndarray,
    context_length: int,
    block_rows: int,
) -> TableTokens:
    """Rank the genes of a sparse matrix in memory, whose longest row is counted first."""
    n_obs, n_columns = counts.shape
    counts = as_csr(counts)
    n_tokens = np.minimum(count_genes(counts, index), context_length)
    tokens = np.zeros((n_obs, _width(n_tokens)), dtype=np.uint16)
    umis = np.zeros(n_columns, np.int64)
    with Progress(n_obs, "tokenize", "spot") as progress:
        for start in range(0, n_obs, block_rows):
            rows = slice(start, min(start + block_rows, n_obs))
            block = _view_rows(counts, rows)
            rank(block, context_length=tokens.shape[1], out=tokens[rows])
            umis += sum_columns(block)
            progress.update(rows.stop - rows.start)
    return TableTokens(tokens, n_tokens, umis)


def _rank_blocks(
    counts: Any, rank: Callable[..., RankedGenes], index: np.ndarray, context_length: int
) -> TableTokens:
    """Rank the genes of counts that are read in blocks; each block is only as wide as it needs."""
    n_obs, n_columns = counts.shape
    n_tokens = np.zeros(n_obs, np.int64)
    umis = np.zeros(n_columns, np.int64)
    parts = []
    start = 0
    with Progress(n_obs, "tokenize", "spot") as progress:
        for block in row_blocks(counts):
            rows = slice(start, start + block.shape[0])
            n_tokens[rows] = np.minimum(count_genes(block, index), context_length)
            parts.append(rank(block, context_length=_width(n_tokens[rows])).tokens)
            umis += sum_columns(block)
            start = rows.stop
            del block  # free its memory before the next one is read
            progress.update(rows.stop - rows.start)
    return TableTokens(_join(parts, _width(n_tokens)), n_tokens, umis)


def _rank_lazily(
    counts: Any, rank: Callable[..., RankedGenes], index: np.ndarray, context_length: int
) -> TableTokens:
    """Rank the genes of all spots with Dask.

    One pass over the chunks counts tokens and UMIs. The tokens stay a Dask array: genes are ranked
    when it is computed.
    """
    import dask

    def count(block: Any) -> tuple[np.ndarray, np.ndarray]:
        counts = as_csr(block)
        if not is_whole(counts.data):
            raise not_whole_error(counts.data)
        return np.minimum(count_genes(counts, index), context_length), sum_columns(counts)

    chunks = counts.to_delayed().ravel()
    results = dask.compute(*[dask.delayed(count)(chunk) for chunk in chunks])
    n_tokens, umis = zip(*results, strict=True)
    all_n_tokens = np.concatenate(n_tokens)
    width = _width(all_n_tokens)

    def rank_tokens(block: Any) -> np.ndarray:
        return rank(as_csr(block), context_length=width).tokens

    tokens = counts.map_blocks(
        rank_tokens,
        chunks=(counts.chunks[0], (width,)),
        dtype=np.uint16,
        meta=np.empty((0, 0), np.uint16),
    )
    return TableTokens(tokens, all_n_tokens, sum(umis))


def _width(n_tokens: np.ndarray) -> int:
    """Return the largest number of tokens; a table without tokens has one column."""
    return max(int(n_tokens.max(initial=0)), 1)


def _view_rows(counts: Any, rows: slice) -> Any:
    """Return rows of a CSR without a copy of its counts."""
    from scipy.sparse import csr_matrix

    indptr = counts.indptr[rows.start : rows.stop + 1]
    part = slice(indptr[0], indptr[-1])
    return csr_matrix(
        (counts.data[part], counts.indices[part], indptr - indptr[0]),
        shape=(rows.stop - rows.start, counts.shape[1]),
        copy=False,
    )


def _join(parts: list[np.ndarray], width: int) -> np.ndarray:
    """Return blocks of tokens below each other, padded with 0; each block is freed when copied."""
    if len(parts) == 1:
        return parts[0]
    tokens = np.zeros((sum(len(part) for part in parts), width), dtype=np.uint16)
    stop = len(tokens)
    while parts:
        part = parts.pop()
        tokens[stop - len(part) : stop, : part.shape[1]] = part
        stop -= len(part)
    return tokens
