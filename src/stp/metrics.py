"""Scores of predictions, retrieval and clusters; arrays in, numbers out."""

import numpy as np

__all__ = ["clustering_scores", "gene_pearson", "recall_at_k"]


def gene_pearson(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Correlate each gene over the spots of one slide.

    Parameters
    ----------
    measured, predicted
        (n_spots, n_genes) on the same scale, e.g. log1p of counts per 10,000.

    Returns
    -------
    (n_genes,) Pearson correlations; 0 where either side is constant, NaN where a value is.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (measured, predicted))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    # Rounding leaves a constant column a norm near 0, not exactly 0.
    largest = np.abs(measured).max(axis=0) + np.abs(predicted).max(axis=0) + 1e-300
    constant = norm <= np.finfo(np.float64).eps * len(a) * largest**2
    return np.divide((a * b).sum(axis=0), norm, out=np.zeros(a.shape[1]), where=~constant)


def recall_at_k(queries: np.ndarray, references: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)) -> dict[int, float]:
    """Share of queries whose own reference (same row) is among the k of highest inner product.

    Parameters
    ----------
    queries, references
        (n, d) unit vectors of the same spots. Chance is k / n.
    ks
        Depths.

    Returns
    -------
    k to recall in [0, 1]. References that tie with the query's own one count as ranked before it.
    """
    scores = np.asarray(queries) @ np.asarray(references).T
    own = np.diagonal(scores)[:, None]
    rank = (~(scores < own)).sum(axis=1) - 1  # so that a query of NaN comes last
    return {k: float((rank < k).mean()) for k in ks}


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Compare clusters with labels.

    Parameters
    ----------
    labels, clusters
        (n,) one label per spot each.

    Returns
    -------
    The adjusted Rand index as "ari" and the normalized mutual information as "nmi".
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    scores = {"ari": adjusted_rand_score, "nmi": normalized_mutual_info_score}
    return {name: float(score(labels, clusters)) for name, score in scores.items()}
