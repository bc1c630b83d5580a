"""How active gene sets are in a spot: the mean log1p expression of their genes (the pathway STAMP's target)."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from stp.tables.counts import log_normalized

__all__ = ["membership", "set_scores"]


def membership(index: np.ndarray, sets: Sequence[np.ndarray]) -> csr_matrix:
    """Return what averages over the measured genes of each set: (n_genes, n_sets), zero where none is measured.

    Parameters
    ----------
    index
        Vocabulary index of each column of a table, -1 where it has none.
    sets
        Vocabulary indices of the genes of each set.
    """
    measured = [genes[np.isin(genes, index)] for genes in sets]
    sizes = np.array([len(genes) for genes in measured])
    genes, of_set = np.concatenate(measured), np.repeat(np.arange(len(sets)), sizes)
    shape = (index.max(initial=-1) + 1, len(sets))
    return csr_matrix(((1 / sizes.clip(1))[of_set], (genes, of_set)), shape=shape)


def set_scores(counts: csr_matrix, index: np.ndarray, average: csr_matrix) -> np.ndarray:
    """Return the mean over each set of log1p of counts per 10,000: (n, n_sets) float32.

    Columns of one gene are summed first. NaN for a set of which no gene is measured, and for a spot without counts.

    Parameters
    ----------
    counts
        (n, n_columns) raw counts.
    index
        Vocabulary index of each column, -1 where it has none.
    average
        What `membership` made of `index`.
    """
    known = np.flatnonzero(index >= 0)
    merge = csr_matrix(
        (np.ones(len(known)), (known, index[known])), shape=(len(index), average.shape[0])
    )
    total = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    scores = (
        (log_normalized((counts @ merge).tocsr(), total) @ average).toarray().astype(np.float32)
    )
    scores[:, np.diff(average.tocsc().indptr) == 0] = np.nan
    scores[total == 0] = np.nan
    return scores
