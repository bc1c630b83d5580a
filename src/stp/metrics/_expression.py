"""Scores of predicted expression."""

from typing import NamedTuple

import numpy as np


class ScoredGenes(NamedTuple):
    """Columns of the genes that a prediction is scored on.

    Examples
    --------
    >>> genes = stp.metrics.ScoredGenes(variable=[0, 1], expressed=[1, 2])
    >>> genes.variable
    [0, 1]
    """

    variable: np.ndarray  # those of highest variance
    expressed: np.ndarray  # those of highest mean


def gene_pearson(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Correlate each gene over the spots of one slide.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) on the same scale, e.g. log1p of counts per 10,000.

    Returns
    -------
    (n_genes,) Pearson correlations; 0 where either side is constant, NaN where a value is.

    Examples
    --------
    >>> stp.metrics.gene_pearson([[0, 1], [1, 1], [2, 1]], [[0, 5], [2, 6], [4, 7]]).round(2)
    array([1., 0.])
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (measured, predicted))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    # Rounding leaves a constant column a norm near 0, not exactly 0.
    largest = np.abs(measured).max(axis=0) + np.abs(predicted).max(axis=0) + 1e-300
    constant = norm <= np.finfo(np.float64).eps * len(a) * largest**2
    return np.divide((a * b).sum(axis=0), norm, out=np.zeros(a.shape[1]), where=~constant)


def scored_genes(expression: np.ndarray, n_genes: int = 100) -> ScoredGenes:
    """Choose the genes to score, on training slides (paper, section A.3.3).

    Parameters
    ----------
    expression
        (n_spots, n_genes) of the training slides, log1p of counts per 10,000.
    n_genes
        How many of each kind; all where there are fewer.

    Returns
    -------
    Columns by falling variance and by falling mean; ties go to the lower column.

    Examples
    --------
    >>> stp.metrics.scored_genes([[5, 0, 1], [5, 2, 1]], n_genes=1)
    ScoredGenes(variable=array([1]), expressed=array([0]))
    """
    values = np.asarray(expression)
    variable, expressed = (
        np.argsort(-of(axis=0), kind="stable")[:n_genes] for of in (values.var, values.mean)
    )
    return ScoredGenes(variable, expressed)


def expression_scores(
    measured: np.ndarray, predicted: np.ndarray, genes: ScoredGenes
) -> dict[str, float]:
    """Score predicted expression of one slide as the paper does (section A.3.3).

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) log1p of counts per 10,000.
    genes
        Columns chosen by :func:`scored_genes` on training slides.

    Returns
    -------
    "PCC-V" and "PCC-E", the mean correlation of the most variable and the most expressed genes (a constant prediction
    scores 0), and "MSE", the mean squared error over their union.

    Examples
    --------
    >>> measured = [[5, 0, 1], [5, 2, 1], [6, 1, 1]]
    >>> genes = stp.metrics.scored_genes(measured, n_genes=2)
    >>> stp.metrics.expression_scores(measured, measured, genes)
    {'PCC-V': 1.0, 'PCC-E': 1.0, 'MSE': 0.0}
    """
    r, union = gene_pearson(measured, predicted), np.union1d(genes.variable, genes.expressed)
    error = float(((np.asarray(measured)[:, union] - np.asarray(predicted)[:, union]) ** 2).mean())
    return {
        "PCC-V": float(r[genes.variable].mean()),
        "PCC-E": float(r[genes.expressed].mean()),
        "MSE": error,
    }
