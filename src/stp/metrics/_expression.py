"""Scores of predicted expression."""

from typing import NamedTuple

import numpy as np


class ScoredGenes(NamedTuple):
    """The genes on which a prediction is scored, as columns of the expression matrix.

    Examples
    --------
    >>> genes = stp.metrics.ScoredGenes(variable=[0, 1], expressed=[1, 2])
    >>> genes.variable
    [0, 1]
    """

    variable: np.ndarray  # highest variance first
    expressed: np.ndarray  # highest mean first


def gene_pearson(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the correlation of each gene over the spots of one slide.

    Parameters
    ----------
    measured
        Measured expression (n_spots, n_genes).
    predicted
        Predicted expression (n_spots, n_genes).

    Returns
    -------
    Pearson correlations (n_genes,): 0 if the measured or the predicted values are constant, NaN if
    a value is NaN.

    Examples
    --------
    >>> stp.metrics.gene_pearson([[0, 1], [1, 1], [2, 1]], [[0, 5], [2, 6], [4, 7]]).round(2)
    array([1., 0.])
    """
    a = np.asarray(measured, dtype=np.float64)
    b = np.asarray(predicted, dtype=np.float64)
    a = a - a.mean(axis=0)
    b = b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    # Because of rounding, the norm of a constant column is close to 0 but not exactly 0.
    largest = np.abs(measured).max(axis=0) + np.abs(predicted).max(axis=0) + 1e-300
    is_constant = norm <= np.finfo(np.float64).eps * len(a) * largest**2
    return np.divide((a * b).sum(axis=0), norm, out=np.zeros(a.shape[1]), where=~is_constant)


def scored_genes(expression: np.ndarray, n_genes: int = 100) -> ScoredGenes:
    """Choose the genes to score from the training slides (paper, section A.3.3).

    Parameters
    ----------
    expression
        Expression of the training slides (n_spots, n_genes) in log1p of counts per 10,000.
    n_genes
        Number of most variable genes, and of most expressed genes, that are scored.

    Returns
    -------
    The most variable and the most expressed genes, highest first. Ties go to the lower column.

    Examples
    --------
    >>> stp.metrics.scored_genes([[5, 0, 1], [5, 2, 1]], n_genes=1)
    ScoredGenes(variable=array([1]), expressed=array([0]))
    """
    values = np.asarray(expression)
    by_variance = np.argsort(-values.var(axis=0), kind="stable")
    by_mean = np.argsort(-values.mean(axis=0), kind="stable")
    return ScoredGenes(variable=by_variance[:n_genes], expressed=by_mean[:n_genes])


def expression_scores(
    measured: np.ndarray, predicted: np.ndarray, genes: ScoredGenes
) -> dict[str, float]:
    """Score predicted expression of one slide as the paper does (section A.3.3).

    Both matrices have the same scale, e.g. log1p of counts per 10,000.

    Parameters
    ----------
    measured
        Measured expression (n_spots, n_genes).
    predicted
        Predicted expression (n_spots, n_genes).
    genes
        Genes to score, chosen by :func:`scored_genes` from the training slides.

    Returns
    -------
    "PCC-V" and "PCC-E", the mean correlation of the most variable and the most expressed genes,
    and "MSE", the mean squared error over both. A constant prediction has correlation 0.

    Examples
    --------
    >>> measured = [[5, 0, 1], [5, 2, 1], [6, 1, 1]]
    >>> genes = stp.metrics.scored_genes(measured, n_genes=2)
    >>> stp.metrics.expression_scores(measured, measured, genes)
    {'PCC-V': 1.0, 'PCC-E': 1.0, 'MSE': 0.0}
    """
    correlation = gene_pearson(measured, predicted)
    scored = np.union1d(genes.variable, genes.expressed)
    error = np.asarray(measured)[:, scored] - np.asarray(predicted)[:, scored]
    return {
        "PCC-V": float(correlation[genes.variable].mean()),
        "PCC-E": float(correlation[genes.expressed].mean()),
        "MSE": float((error**2).mean()),
    }
