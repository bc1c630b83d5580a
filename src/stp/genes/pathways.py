"""Activity of gene sets in a spot: the mean log1p expression of their genes (pathway STAMP)."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from stp.tables.counts import log_normalized

__all__ = ["membership", "set_scores"]


def membership(index: np.ndarray, sets: Sequence[np.ndarray]) -> csr_matrix:
    """Return the weights (n_genes, n_sets) that average over the measured genes of each set.

    A set of which no gene is measured has weights of zero.

    Parameters
    ----------
    index
        Vocabulary index of each column of a table, -1 if it has none.
    sets
        Vocabulary indices of the genes of each set.
    """
    measured_sets = [genes[np.isin(genes, index)] for genes in sets]
    sizes = np.array([len(genes) for genes in measured_sets])
    gene_of_entry = np.concatenate(measured_sets)
    set_of_entry = np.repeat(np.arange(len(sets)), sizes)
    weights = (1 / sizes.clip(1))[set_of_entry]
    shape = (index.max(initial=-1) + 1, len(sets))
    return csr_matrix((weights, (gene_of_entry, set_of_entry)), shape=shape)


def set_scores(
    counts: csr_matrix,
    index: np.ndarray,
    average: csr_matrix,
    is_gene: np.ndarray | None = None,
) -> np.ndarray:
    """Return the mean over each set of log1p of counts per 10,000: (n, n_sets) float32.

    Columns of the same gene are summed first. The score is NaN for a set of which no gene is
    measured, and for a spot without counts.

    Parameters
    ----------
    counts
        Raw counts (n, n_columns).
    index
        Vocabulary index of each column (n_columns,), -1 if it has none.
    average
        Weights that `membership` returns for this `index`.
    is_gene
        Whether each column (n_columns,) is a gene and enters the total; by default all are.
    """
    columns = np.flatnonzero(index >= 0)
    ones = np.ones(len(columns))
    merge = csr_matrix((ones, (columns, index[columns])), shape=(len(index), average.shape[0]))
    genes = counts if is_gene is None else counts[:, is_gene]
    total = np.asarray(genes.sum(axis=1), dtype=float).ravel()
    expression = log_normalized((counts @ merge).tocsr(), total)
    scores = (expression @ average).toarray().astype(np.float32)
    is_unmeasured = np.diff(average.tocsc().indptr) == 0
    scores[:, is_unmeasured] = np.nan
    scores[total == 0] = np.nan
    return scores
