"""Rank the genes of each spot into tokens; arrays in, arrays out."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp._threads import in_threads
from stp.genes.rank_kernel import RankTable, rank_rows
from stp.tables.counts import not_raw

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ROWS_PER_THREAD = 256  # fewer are not worth a thread


class Ranked(NamedTuple):
    """Tokens of some spots, and what they leave out."""

    tokens: np.ndarray  # (n, context_length) uint16, padded with 0
    n_tokens: np.ndarray  # (n,) int64
    mapped: np.ndarray  # (n,) int64: UMIs of each spot in genes of the vocabulary
    unmapped: np.ndarray  # (n_columns,) int64: UMIs of each column without a gene, 0 for others


def rank_genes(
    counts: "csr_matrix",
    index: np.ndarray,
    table: RankTable,
    *,
    context_length: int,
    n_special: int,
    out: np.ndarray | None = None,
) -> Ranked:
    """Order the detected genes of each spot by count / mean, highest first (paper, Algorithm 1).

    Scaling a spot to 10,000 counts is a positive factor and cannot change the order, so it is left out. Ties are
    broken by ascending vocabulary index, which makes the tokens the same on every machine. As many threads work as
    `NUMBA_NUM_THREADS` says, all cores where it says nothing.

    Parameters
    ----------
    counts
        (n, n_columns) CSR of raw counts; its columns may stand in any order, and more than once.
    index
        (n_columns,) vocabulary index of each column, -1 where unmapped; counts of one gene are summed.
    table
        What counts are divided by, from `rank_table(divisors)`.
    context_length
        Width of the result: the number of genes kept per spot.
    n_special
        Token of gene 0.
    out
        Where to write the tokens, (n, context_length) of zeros.

    Raises
    ------
    ValueError
        A value is negative, no whole number, or not finite.
    """
    n, n_columns = counts.shape
    if len(index) != n_columns:
        raise ValueError(f"{len(index)} indices for {n_columns} columns")
    tokens = np.zeros((n, context_length), dtype=np.uint16) if out is None else out
    n_tokens, mapped = np.zeros((2, n), np.int64)
    plain = tuple(table)
    columns = counts.indices.view(f"u{counts.indices.itemsize}")
    values = counts.data.astype(np.float32) if counts.data.dtype.itemsize == 2 else counts.data
    values = values.view(np.uint8) if values.dtype == bool else values
    index = np.asarray(index, np.int64)

    def rank(rows: slice) -> np.ndarray:
        unmapped = np.zeros(n_columns, np.int64)
        of_rows = (
            counts.indptr[rows.start : rows.stop + 1],
            columns,
            values,
            index,
            plain,
            np.uint16(n_special),
        )
        wrong = rank_rows(*of_rows, tokens[rows], n_tokens[rows], unmapped, mapped[rows])
        if wrong >= 0:
            raise ValueError(not_raw(float(values[wrong])))
        return unmapped

    unmapped = in_threads(rank, n, ROWS_PER_THREAD)
    return Ranked(tokens, n_tokens, mapped, sum(unmapped, np.zeros(n_columns, np.int64)))
