"""Scores of clusters and of predicted classes."""

import numpy as np


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Compare clusters with labels.

    Parameters
    ----------
    labels, clusters
        (n,) one label per spot each.

    Returns
    -------
    The adjusted Rand index as "ari", the normalized mutual information as "nmi", "homogeneity" (a cluster holds one
    label) and "completeness" (a label lies in one cluster).

    Examples
    --------
    >>> stp.metrics.clustering_scores(["a", "a", "b", "b"], [0, 0, 1, 1])["ari"]
    1.0
    """
    from sklearn import metrics

    scores = {
        "ari": metrics.adjusted_rand_score,
        "nmi": metrics.normalized_mutual_info_score,
        "homogeneity": metrics.homogeneity_score,
        "completeness": metrics.completeness_score,
    }
    return {name: float(score(labels, clusters)) for name, score in scores.items()}


def separation_scores(embedding: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Score how far clusters lie apart in an embedding; no labels are needed.

    Parameters
    ----------
    embedding
        (n, d)
    clusters
        (n,) one cluster per spot.

    Returns
    -------
    "silhouette" in [-1, 1] and "calinski_harabasz", the higher the better; NaN where there is one cluster or one for
    each spot.

    Examples
    --------
    >>> stp.metrics.separation_scores([[0, 0], [0, 1], [9, 0], [9, 1]], [0, 0, 1, 1])[
    ...     "silhouette"
    ... ] > 0.8
    True
    """
    from sklearn import metrics

    scores = {
        "silhouette": metrics.silhouette_score,
        "calinski_harabasz": metrics.calinski_harabasz_score,
    }
    defined = 1 < len(np.unique(clusters)) < len(embedding)
    return {
        name: float(score(embedding, clusters)) if defined else np.nan
        for name, score in scores.items()
    }


def classification_scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Score predicted classes as the paper scores its probes (table 1).

    Parameters
    ----------
    labels, predicted
        (n,) one class per spot each.

    Returns
    -------
    "balanced_accuracy", the mean recall of the classes that occur in `labels`, and "weighted_f1", their mean F1 by
    frequency.

    Examples
    --------
    >>> stp.metrics.classification_scores(["a", "a", "b"], ["a", "b", "b"])["balanced_accuracy"]
    0.75
    """
    from sklearn.metrics import f1_score, recall_score

    present = np.unique(labels)
    kept = {"labels": present, "zero_division": 0}
    return {
        "balanced_accuracy": float(recall_score(labels, predicted, average="macro", **kept)),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", **kept)),
    }
