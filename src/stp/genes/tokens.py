"""Rank the genes of each spot into tokens; arrays in, arrays out."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp._kernels import compile_kernel
from stp._threads import in_threads
from stp.genes.rank_kernel import rank_rows
from stp.genes.rank_table import RankTable
from stp.tables.whole_counts import not_whole_error

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ROWS_PER_THREAD = 256  # fewer are not worth a thread


class RankedGenes(NamedTuple):
    """Tokens of some spots, and the UMIs that they stand for or leave out."""

    # (n, context_length) uint16, padded with 0.
    tokens: np.ndarray
    # (n,) int64: number of tokens of each spot.
    n_tokens: np.ndarray
    # (n,) int64: UMIs of each spot in genes of the vocabulary.
    mapped: np.ndarray
    # (n_columns,) int64: UMIs of each column that is no gene of the vocabulary, 0 for others.
    unmapped: np.ndarray


def rank_genes(
    counts: "csr_matrix",
    index: np.ndarray,
    table: RankTable,
    *,
    context_length: int,
    n_special: int,
    out: np.ndarray | None = None,
) -> RankedGenes:
    """Order the detected genes of each spot by count / mean, highest first (paper, Algorithm 1).

    The paper scales each spot to 10,000 counts first. A positive factor cannot change the order, so
    this step is left out. Ties are broken by ascending vocabulary index, which makes the tokens
    the same on every machine. The environment variable `NUMBA_NUM_THREADS` limits the number of
    threads; by default, all cores work.

    Parameters
    ----------
    counts
        Raw counts (n, n_columns) as CSR. Columns may come in any order and more than once.
    index
        Vocabulary index of each column (n_columns,), -1 if it has none. Columns of the same gene
        are summed.
    table
        The means that counts are divided by, made by `rank_table(divisors)`.
    context_length
        Number of genes to keep per spot, and width of the result.
    n_special
        Token of gene 0.
    out
        Array of zeros (n, context_length) to write the tokens to; by default a new one.

    Raises
    ------
    ValueError
        If a value is negative, not whole or not finite.
    """
    n, n_columns = counts.shape
    if len(index) != n_columns:
        raise ValueError(f"{len(index)} indices for {n_columns} columns")
    tokens = np.zeros((n, context_length), dtype=np.uint16) if out is None else out
    n_tokens = np.zeros(n, np.int64)
    mapped = np.zeros(n, np.int64)
    index = np.asarray(index, np.int64)
    columns = counts.indices.view(f"u{counts.indices.itemsize}")
    values = _to_numba_type(counts.data)

    def rank(rows: slice) -> np.ndarray:
        unmapped = np.zeros(n_columns, np.int64)
        bad_position = rank_rows(
            counts.indptr[rows.start : rows.stop + 1],
            columns,
            values,
            index,
            tuple(table),
            np.uint16(n_special),
            tokens[rows],
            n_tokens[rows],
            unmapped,
            mapped[rows],
        )
        if bad_position >= 0:
            raise not_whole_error(values)
        return unmapped

    unmapped = in_threads(rank, n, ROWS_PER_THREAD)
    return RankedGenes(tokens, n_tokens, mapped, sum(unmapped, np.zeros(n_columns, np.int64)))


def count_genes(counts: "csr_matrix", index: np.ndarray) -> np.ndarray:
    """Return how many genes of the vocabulary each spot detects, int64 (n,).

    Parameters
    ----------
    counts
        Raw counts (n, n_columns) as CSR. Columns may come in any order and more than once.
    index
        Vocabulary index of each column (n_columns,), -1 if it has none.
    """
    n_genes = np.zeros(counts.shape[0], np.int64)
    index = np.asarray(index, np.int64)
    values = _to_numba_type(counts.data)

    def count(rows: slice) -> None:
        last_row = np.full(int(index.max(initial=-1)) + 1, -1, np.int64)
        indptr = counts.indptr[rows.start : rows.stop + 1]
        _count_genes(indptr, counts.indices, values, index, last_row, n_genes[rows])

    in_threads(count, len(n_genes), ROWS_PER_THREAD)
    return n_genes


@compile_kernel()
def _count_genes(indptr, columns, counts, index, last_row, n_genes):
    """Count the different genes of each row; `last_row` of a gene is where it was counted last."""
    for row in range(len(n_genes)):
        for k in range(indptr[row], indptr[row + 1]):
            gene = index[columns[k]]
            if gene >= 0 and counts[k] > 0 and last_row[gene] != row:
                last_row[gene] = row
                n_genes[row] += 1


def sum_columns(counts: "csr_matrix") -> np.ndarray:
    """Return the sum of each column, int64 (n_columns,), of whole counts. The sums are exact."""
    sums = np.zeros(counts.shape[1], np.int64)
    _add_columns(counts.indices, _to_numba_type(counts.data), sums)
    return sums


@compile_kernel()
def _add_columns(columns, counts, sums):
    """Add whole counts to the sums (int64) of their columns."""
    for k in range(len(columns)):
        sums[columns[k]] += np.int64(counts[k])


def _to_numba_type(values: np.ndarray) -> np.ndarray:
    """Return counts in a type that numba knows: 16 bits as float32, bool as uint8."""
    if values.dtype.itemsize == 2:
        return values.astype(np.float32)
    return values.view(np.uint8) if values.dtype == bool else values
