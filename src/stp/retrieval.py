"""Retrieve the nearest references of each query and average their profiles (paper, equation 12)."""

from typing import NamedTuple

import numpy as np

BLOCK = 4096  # queries scored at a time


class Neighbors(NamedTuple):
    """The references of each query, nearest first."""

    index: np.ndarray  # (n_queries, k) int64
    similarity: np.ndarray  # (n_queries, k) float32


def nearest(queries: np.ndarray, references: np.ndarray, k: int) -> Neighbors:
    """Find the k references of highest cosine for each query; ties go to the lower reference index.

    Parameters
    ----------
    queries, references
        Unit vectors (n_queries, d) and (n_references, d).
    k
        Number of references, at most `n_references`.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"cannot retrieve {k} neighbors from {len(references)} references; lower n_neighbors")
    blocks = [_nearest(queries[i : i + BLOCK] @ references.T, k) for i in range(0, len(queries), BLOCK)]
    index, similarity = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return Neighbors(index, similarity)


def _nearest(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    index = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(scores, index, axis=1)


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
    return np.where(total > 0, positive / np.where(total > 0, total, 1), 1 / similarity.shape[1]), uniform
