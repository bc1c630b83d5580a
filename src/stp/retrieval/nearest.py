"""Retrieve the nearest references of each query, exactly, and average their profiles (paper, equation 12)."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stp._threads import in_threads
from stp.retrieval.kernel import add_profiles, keep_best, to_unit_length

QUERIES, REFERENCES = 2048, 4096  # scored against each other at a time
ROWS_PER_THREAD = 64


class Neighbors(NamedTuple):
    """The references of each query, nearest first."""

    # (n_queries, k) int64; hides index of tuples
    index: np.ndarray  # type: ignore[assignment]
    similarity: np.ndarray  # (n_queries, k) float32


def nearest(
    queries: np.ndarray, references: np.ndarray | Iterable[np.ndarray], k: int
) -> Neighbors:
    """Find the k references of highest cosine for each query; ties go to the lower reference index.

    Exact: cosines that decide are computed in float64, and those of equal vectors are equal. There is never more than
    a block of cosines in memory.

    Parameters
    ----------
    queries
        Vectors (n_queries, d).
    references
        Vectors (n_references, d), in one array or in several one after the other. Vectors of NaN are passed over.
    k
        Number of references, at most `n_references`.

    Raises
    ------
    ValueError
        There are fewer references than that.
    """
    from threadpoolctl import threadpool_limits

    queries, _ = _unit(queries)
    index = np.full((len(queries), max(k, 0)), -1, dtype=np.int64)
    similarity, n_usable, first = np.full(index.shape, -np.inf), 0, 0
    scores = np.empty((min(QUERIES, len(queries)), REFERENCES), dtype=np.float32)
    # Each thread multiplies and looks at its own queries: threads of BLAS would wait, spinning, while scores are read.
    with threadpool_limits(1, user_api="blas"):
        for part in [references] if isinstance(references, np.ndarray) else references:
            for start in range(0, len(part), REFERENCES):
                block, usable = _unit(part[start : start + REFERENCES])
                n_usable += usable
                if k > 0:
                    _update_best(queries, block, scores, first, index, similarity)
                first += len(block)
    if not 1 <= k <= n_usable:
        raise ValueError(
            f"cannot retrieve {k} neighbors from {n_usable} references; lower n_neighbors"
        )
    return Neighbors(index, similarity.astype(np.float32))


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, int]:
    """Return vectors of length one, NaN where there is no length, and how many have one."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    unit, usable = np.empty_like(vectors), np.empty(len(vectors), dtype=bool)
    in_threads(
        lambda rows: to_unit_length(vectors[rows], unit[rows], usable[rows]),
        len(vectors),
        ROWS_PER_THREAD,
    )
    return unit, int(usable.sum())


def _update_best(
    queries, block, memory, first: int, index: np.ndarray, similarity: np.ndarray
) -> None:
    """Score a block of references against all queries, in memory that is used again, and keep what is best so far."""
    slack = (
        2.0**-22 * queries.shape[1]
    )  # four times the bound on what float32 does to a sum of so many products
    for start in range(0, len(queries), QUERIES):

        def take(rows: slice, start: int = start) -> None:
            at, scores = slice(start + rows.start, start + rows.stop), memory[rows, : len(block)]
            np.matmul(queries[at], block.T, out=scores)
            keep_best(scores, slack, queries[at], block, first, index[at], similarity[at])

        in_threads(take, min(QUERIES, len(queries) - start), ROWS_PER_THREAD)


def weights(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn similarities into weights that sum to one (paper, eq. 12).

    Negative similarities weigh 0; where none is positive the weights are uniform.

    Parameters
    ----------
    similarity
        (n_queries, k)

    Returns
    -------
    Weights (n_queries, k) and a flag (n_queries,), True where they had to be uniform.
    """
    positive = np.maximum(similarity, 0).astype(np.float64)
    total = positive.sum(axis=1, keepdims=True)
    uniform = total[:, 0] <= 0
    return np.where(
        total > 0, positive / np.where(total > 0, total, 1), 1 / similarity.shape[1]
    ), uniform


class WeightedMeans:
    """Weighted means of profiles and their spread, from blocks of profiles that need not be in memory together.

    Parameters
    ----------
    index, weight
        (n_queries, k) profiles of each query, and what they weigh; weights of a query sum to one.
    n_genes
        Width of a profile.
    """

    def __init__(self, index: np.ndarray, weight: np.ndarray, n_genes: int) -> None:
        n, k = index.shape
        order = np.argsort(index, axis=None, kind="stable")
        self._index, self._weight, self._query = (
            index.ravel()[order],
            weight.ravel()[order],
            order // k,
        )
        self._total = np.zeros(n)
        self.mean, self._squares = np.zeros((2, n, n_genes), dtype=np.float32)

    @property
    def rows(self) -> np.ndarray:
        """The profiles that are needed, in order."""
        return np.unique(self._index)

    def add(self, rows: np.ndarray, profiles: np.ndarray) -> None:
        """Add profiles (m, n_genes) with these indices, which ascend."""
        part = slice(*np.searchsorted(self._index, [rows[0], rows[-1] + 1]))
        order = np.argsort(
            self._query[part], kind="stable"
        )  # by query, and the profiles of each in their order
        at = np.searchsorted(rows, self._index[part][order])
        starts = np.searchsorted(self._query[part][order], np.arange(len(self._total) + 1))
        profiles, weight = (
            np.ascontiguousarray(profiles, dtype=np.float32),
            self._weight[part][order],
        )

        def add(q: slice) -> None:
            out = self._total[q], self.mean[q], self._squares[q]
            add_profiles(profiles, at, weight, starts[q.start : q.stop + 1], *out)

        in_threads(add, len(self._total), ROWS_PER_THREAD)

    @property
    def std(self) -> np.ndarray:
        """Weighted standard deviation of the profiles of each query (n_queries, n_genes)."""
        return np.sqrt(np.maximum(self._squares, 0))
