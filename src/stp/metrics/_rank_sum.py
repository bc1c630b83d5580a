"""The rank-sum test of many columns, within slides (Wilcoxon 1945, van Elteren 1960)."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

BLOCK_VALUES = 2**22  # stored values that are ranked at a time


class RankSums:
    """Compare some spots with the others of their slide; slides are added one after the other.

    Parameters
    ----------
    n_columns
        Number of columns to compare.
    """

    def __init__(self, n_columns: int) -> None:
        self.n_pairs = 0
        self._u = np.zeros(n_columns)
        self._deviation = np.zeros(n_columns)
        self._variance = np.zeros(n_columns)

    def add(
        self, values: "csc_matrix", is_hit: np.ndarray, *, block_values: int = BLOCK_VALUES
    ) -> None:
        """Add a slide.

        Parameters
        ----------
        values
            Values (n, n_columns), none negative, without stored zeros.
        is_hit
            Which spots (n,) are compared with the others.
        block_values
            Number of stored values that are ranked at a time.
        """
        n = len(is_hit)
        n_hits = int(is_hit.sum())
        n_pairs = n_hits * (n - n_hits)
        if n_pairs == 0:
            return
        u = np.empty(values.shape[1])
        ties = np.empty(values.shape[1])
        first = 0
        while first < values.shape[1]:
            limit = values.indptr[first] + block_values
            last = int(np.searchsorted(values.indptr, limit, side="right")) - 1
            last = min(max(last, first + 1), values.shape[1])
            u[first:last], ties[first:last] = _rank(values[:, first:last], is_hit)
            first = last
        variance = n_pairs / 12 * (n + 1 - ties / (n * (n - 1)))
        weight = 1 / (n + 1)
        self.n_pairs += n_pairs
        self._u += u
        self._deviation += weight * (u - n_pairs / 2)
        self._variance += weight**2 * variance

    @property
    def auroc(self) -> np.ndarray:
        """Share of pairs of a hit and another spot in which the hit is higher; ties count half."""
        return self._u / self.n_pairs

    @property
    def z(self) -> np.ndarray:
        """Standard normal under the null hypothesis; NaN for a column that does not vary."""
        is_varying = self._variance > 1e-12
        z = np.full(len(self._u), np.nan)
        np.divide(self._deviation, np.sqrt(self._variance), out=z, where=is_varying)
        return z


# Worked example: one column with the values [0, 0, 2, 5], of which the hits are the first and last.
#   zeros: 2, so each has the rank 1.5; the stored values 2 and 5 have the ranks 3 and 4
#   ranks of the hits: 1.5 + 4 = 5.5; U = 5.5 - 2 * 3 / 2 = 2.5 of 4 pairs
#   pairs (hit, other): (0, 0) half, (0, 2) none, (5, 0) one, (5, 2) one: 2.5
#   ties: two zeros, 2^3 - 2 = 6
def _rank(values: "csc_matrix", is_hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return U of the hits and the sum of t^3 - t over groups of t ties, for each column."""
    n, n_columns = values.shape
    n_hits = int(is_hit.sum())
    n_stored = np.diff(values.indptr)
    n_zeros = (n - n_stored).astype(float)
    column = np.repeat(np.arange(n_columns), n_stored)
    order = np.lexsort((values.data, column))
    number = values.data[order]
    # Groups of equal values of a column; their members have the mean of their ranks.
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (number[1:] != number[:-1]) | (column[1:] != column[:-1])
    starts = np.flatnonzero(is_first)
    size = np.diff(np.append(starts, len(order))).astype(float)
    group_column = column[starts]
    below = starts - values.indptr[:-1][group_column] + n_zeros[group_column]
    rank = np.repeat(below + (size + 1) / 2, size.astype(int))
    hit = is_hit[values.indices[order]]
    rank_sum = np.bincount(column[hit], rank[hit], n_columns).astype(float)  # int if it is empty
    n_zero_hits = n_hits - np.bincount(column[hit], minlength=n_columns)
    rank_sum += n_zero_hits * (n_zeros + 1) / 2
    ties = np.bincount(group_column, size**3 - size, n_columns) + n_zeros**3 - n_zeros
    return rank_sum - n_hits * (n_hits + 1) / 2, ties
