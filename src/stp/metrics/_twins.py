"""Spots whose expression correlates all but perfectly with that of a spot of another slide."""

from collections.abc import Iterable

import numpy as np

SAME = 0.99  # correlation from which two spots count as the same


def share_with_twin(queries: np.ndarray, references: Iterable[np.ndarray]) -> float:
    """Return the share of spots that have a twin: a spot of nearly the same expression (r > 0.99).

    Parameters
    ----------
    queries
        Counts (n, n_genes) of spots.
    references
        Counts (m, n_genes) of the same genes in the spots of the other slide, in blocks.
    """
    profiles = _standardize(queries)
    has_twin = np.zeros(len(queries), bool)
    for block in references:
        has_twin |= (_standardize(block) @ profiles.T > SAME).any(axis=0)
    return float(has_twin.mean()) if len(queries) else 0.0


def _standardize(counts: np.ndarray) -> np.ndarray:
    """Return log1p of counts per 10,000, with mean 0 and length 1 in each spot."""
    counts = np.asarray(counts, np.float32)
    values = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    centered = values - values.mean(axis=1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
