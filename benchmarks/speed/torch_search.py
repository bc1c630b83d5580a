"""Exact retrieval by `torch.topk` in blocks: a peer of the kernel of `stp.retrieval`."""

import numpy as np
import torch
from torch import Tensor

SLACK = 2.0**-22  # times the width: more than rounding to float32 changes a cosine


def to_unit_length(vectors: np.ndarray) -> Tensor:
    """Return vectors of length one in float32."""
    return torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)


def nearest_by_topk(
    queries: np.ndarray,
    references: np.ndarray,
    k: int,
    *,
    margin: int = 16,
    block_rows: int = 4096,
    query_rows: int = 128,
) -> np.ndarray:
    """Return the k references of highest cosine for each query; ties go to the lower index.

    A product in float32 selects k + margin references, block by block. Their cosines are computed
    again in float64. If the margin is too small to be sure, the query is compared with all
    references in float64.

    Parameters
    ----------
    queries, references
        Vectors (n, d).
    k
        Number of references to return for each query.
    margin
        Number of further references that are scored in float64.
    block_rows
        Number of references that are multiplied at a time.
    query_rows
        Number of queries that are scored in float64 at a time.
    """
    unit_queries = to_unit_length(queries)
    unit_references = to_unit_length(references)
    n_kept = min(k + margin, len(references))
    scores = torch.empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.long)
    for start in range(0, len(references), block_rows):
        block_scores = unit_queries @ unit_references[start : start + block_rows].T
        block_best = block_scores.topk(min(n_kept, block_scores.shape[1]))
        candidates = torch.cat([scores, block_best.values], dim=1)
        candidate_index = torch.cat([index, block_best.indices + start], dim=1)
        best = candidates.topk(min(n_kept, candidates.shape[1]))
        scores = best.values
        index = candidate_index.gather(1, best.indices)
    nearest = torch.empty(len(queries), k, dtype=torch.long)
    for start in range(0, len(queries), query_rows):
        rows = slice(start, start + query_rows)
        nearest[rows] = _rescore(unit_queries[rows], unit_references, index[rows], k)
        exact_last = _cosines(unit_queries[rows], unit_references, nearest[rows, -1:])[:, 0]
        is_unsure = exact_last <= scores[rows, -1] + SLACK * queries.shape[1]
        if n_kept < len(references):
            everything = torch.arange(len(references))[None]
            for row in start + is_unsure.nonzero()[:, 0]:
                query = unit_queries[row][None]
                nearest[row] = _rescore(query, unit_references, everything, k)[0]
    return nearest.numpy()


def _rescore(queries: Tensor, references: Tensor, index: Tensor, k: int) -> Tensor:
    """Return the best k of these references (n_queries, m), by float64 and then by index."""
    ascending = index.sort(dim=1).values
    cosines = _cosines(queries, references, ascending)
    order = cosines.argsort(dim=1, descending=True, stable=True)
    return ascending.gather(1, order[:, :k])


def _cosines(queries: Tensor, references: Tensor, index: Tensor) -> Tensor:
    """Return cosines in float64, row by row, so that equal vectors have equal cosines."""
    return (references[index].double() * queries[:, None].double()).sum(dim=2)
