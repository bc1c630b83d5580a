"""Retrieve the nearest references of each query exactly, and average their profiles (eq. 12)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stp._progress import Progress
from stp._threads import in_threads
from stp.retrieval.kernel import add_profiles, keep_best, sort_pairs, to_unit_length

QUERY_ROWS = 2048  # queries that are scored at a time
REFERENCE_ROWS = 4096  # references that are scored at a time
ROWS_PER_THREAD = 64
WEIGHT_ROWS = 65_536  # queries whose weights are computed at a time


@dataclass(frozen=True)
class Neighbors:
    """The references of each query, nearest first."""

    index: np.ndarray  # (n_queries, k) int64
    similarity: np.ndarray  # (n_queries, k), cosines


def nearest(
    queries: np.ndarray,
    references: np.ndarray | Iterable[np.ndarray],
    k: int,
    *,
    query_rows: int = QUERY_ROWS,
    reference_rows: int = REFERENCE_ROWS,
    n_references: int | None = None,
) -> Neighbors:
    """Find the k references of highest cosine for each query; ties go to the lower reference index.

    The result is exact: cosines that decide are computed in float64, and equal vectors have equal
    cosines. Only one block of cosines is in memory at a time.

    Parameters
    ----------
    queries
        Vectors (n_queries, d). A vector of zeros or with NaN has no references: their indices are
        -1 and the cosines minus infinity.
    references
        Vectors (n_references, d) in one array, or in several arrays that follow each other. A
        vector of zeros or with NaN is skipped.
    k
        Number of references per query.
    query_rows
        Number of queries in a block of cosines. Only one block is copied at a time.
    reference_rows
        Number of references in a block of cosines.
    n_references
        Number of references in all, if it is known, for the progress.

    Returns
    -------
    Indices (int64) and cosines (float32) of the references.

    Raises
    ------
    ValueError
        There are fewer than `k` references.
    """
    from threadpoolctl import threadpool_limits

    shape = (len(queries), max(k, 0))
    best = Neighbors(np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf))
    scores = np.empty((min(query_rows, len(queries)), reference_rows), dtype=np.float32)
    n_usable = 0
    first = 0  # index of the block's first reference
    # Each thread multiplies its own queries: threads of BLAS would wait, spinning, in between.
    blas_limit = threadpool_limits(1, user_api="blas")
    n_pairs = None if n_references is None else n_references * len(queries)
    with blas_limit, Progress(n_pairs, "retrieve", "comparison") as progress:
        for vectors in _cut_into_blocks(references, reference_rows):
            block, is_usable = _to_unit_length(vectors)
            n_usable += int(is_usable.sum())
            if k > 0:
                for start in range(0, len(queries), query_rows):
                    rows = slice(start, start + query_rows)
                    lists = Neighbors(best.index[rows], best.similarity[rows])
                    _update_best(lists, queries[rows], block, scores, first=first)
                    progress.update(len(lists.index) * len(block))
            first += len(block)
    if not 1 <= k <= n_usable:
        raise ValueError(
            f"cannot retrieve {k} neighbors from {n_usable} references; lower n_neighbors"
        )
    return Neighbors(best.index, best.similarity.astype(np.float32))


def _cut_into_blocks(
    references: np.ndarray | Iterable[np.ndarray], n_rows: int
) -> Iterator[np.ndarray]:
    """Yield blocks of `n_rows` references; the last one has fewer. Small parts are joined."""
    parts: list[np.ndarray] = []
    n_waiting = 0
    for part in [references] if isinstance(references, np.ndarray) else references:
        start = 0
        while start < len(part):
            stop = min(start + n_rows - n_waiting, len(part))
            parts.append(part[start:stop])
            n_waiting += stop - start
            start = stop
            if n_waiting == n_rows:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts, n_waiting = [], 0
    if parts:
        yield np.concatenate(parts)


def _to_unit_length(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors, NaN if a vector has no length, and whether each vector has one."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    unit = np.empty_like(vectors)
    is_usable = np.empty(len(vectors), dtype=bool)

    def divide(rows: slice) -> None:
        to_unit_length(vectors[rows], unit[rows], is_usable[rows])

    in_threads(divide, len(vectors), ROWS_PER_THREAD)
    return unit, is_usable


def _update_best(
    best: Neighbors, queries: np.ndarray, block: np.ndarray, scores: np.ndarray, *, first: int
) -> None:
    """Score a block of references against queries, and insert them into the lists of the best.

    The queries need not be unit vectors. `scores` is memory that is used again for each block.
    `first` is the index of the first reference of the block.
    """
    # Four times the bound on the error of a float32 sum of this many products.
    slack = 2.0**-22 * queries.shape[1]

    def update(rows: slice) -> None:
        own_scores = scores[rows, : len(block)]
        # Unit vectors of all queries would double the memory; this takes a hundredth of the time.
        own_queries = np.ascontiguousarray(queries[rows], dtype=np.float32)
        unit = np.empty_like(own_queries)
        to_unit_length(own_queries, unit, np.empty(len(unit), dtype=bool))
        np.matmul(unit, block.T, out=own_scores)
        keep_best(
            own_scores,
            slack,
            unit,
            block,
            first,
            best.index[rows],
            best.similarity[rows],
        )

    in_threads(update, len(queries), ROWS_PER_THREAD)


def weights(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn similarities into weights that sum to one (paper, eq. 12).

    Negative similarities have weight 0. If none of a query is positive, its weights are equal.

    Parameters
    ----------
    similarity
        Cosines (n_queries, k).

    Returns
    -------
    Weights (n_queries, k), and a flag (n_queries,) for queries whose weights had to be equal.
    """
    weight = np.empty(similarity.shape)
    is_uniform = np.empty(len(similarity), dtype=bool)
    for start in range(0, len(similarity), WEIGHT_ROWS):
        rows = slice(start, start + WEIGHT_ROWS)
        positive = np.maximum(similarity[rows], 0).astype(np.float64)
        total = positive.sum(axis=1, keepdims=True)
        equal = 1 / similarity.shape[1]
        weight[rows] = np.where(total > 0, positive / np.where(total > 0, total, 1), equal)
        is_uniform[rows] = total[:, 0] <= 0
    return weight, is_uniform


class WeightedMeans:
    """Weighted mean and standard deviation of profiles, which may come in blocks.

    Parameters
    ----------
    index
        Profiles of each query (n_queries, k); -1 is no profile.
    weight
        Weights of these profiles (n_queries, k); those of a query sum to one.
    n_genes
        Number of genes of a profile.
    """

    def __init__(self, index: np.ndarray, weight: np.ndarray, n_genes: int) -> None:
        n_queries, self._k = index.shape
        self._n_profiles = np.bincount(index.ravel() + 1)[1:]  # the first are no profile
        # Pairs of query and profile, sorted by profile, so that a block of profiles is a slice.
        self._starts = np.concatenate([[0], np.cumsum(self._n_profiles)])
        pair_type = np.uint32 if index.size < 2**32 else np.int64
        self._pairs = np.empty(self._starts[-1], dtype=pair_type)
        sort_pairs(index.ravel(), self._starts[:-1].copy(), self._pairs)
        self._weight = weight.ravel()
        self._index = index.ravel()
        self._total = np.zeros(n_queries)
        self._squares = np.zeros((n_queries, n_genes), dtype=np.float32)
        self.mean = np.zeros((n_queries, n_genes), dtype=np.float32)

    @property
    def rows(self) -> np.ndarray:
        """The profiles that are needed, in ascending order."""
        return np.flatnonzero(self._n_profiles)

    def add(self, rows: np.ndarray, profiles: np.ndarray) -> None:
        """Add profiles (m, n_genes); `rows` (m,) are their indices in ascending order."""
        first, last = np.minimum([rows[0], rows[-1] + 1], len(self._starts) - 1)
        pairs = self._pairs[self._starts[first] : self._starts[last]]
        query = pairs // self._k
        order = np.argsort(query, kind="stable")
        pairs = pairs[order]
        n_queries = len(self._total)
        starts = np.searchsorted(query[order], np.arange(n_queries + 1))
        positions = np.searchsorted(rows, self._index[pairs])
        weight = self._weight[pairs]
        profiles = np.ascontiguousarray(profiles, dtype=np.float32)

        def add_to(queries: slice) -> None:
            add_profiles(
                profiles,
                positions,
                weight,
                starts[queries.start : queries.stop + 1],
                self._total[queries],
                self.mean[queries],
                self._squares[queries],
            )

        in_threads(add_to, n_queries, ROWS_PER_THREAD)

    def take_std(self) -> np.ndarray:
        """Return the weighted standard deviation (n_queries, n_genes) of the profiles.

        It takes the place of sums in memory, so nothing can be added later.
        """
        squares, self._squares = self._squares, np.empty((0, 0), dtype=np.float32)
        np.maximum(squares, 0, out=squares)
        return np.sqrt(squares, out=squares)
