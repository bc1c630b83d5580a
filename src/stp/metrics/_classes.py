"""Scores of clusters and of predicted classes."""

import numpy as np


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Compare clusters with labels.

    Parameters
    ----------
    labels
        Class of each spot (n,).
    clusters
        Cluster of each spot (n,).

    Returns
    -------
    "ari", the adjusted Rand index; "nmi", the normalized mutual information; "homogeneity", which
    is 1 if each cluster contains one class; "completeness", which is 1 if each class is in one
    cluster.

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
    """Score how well clusters are separated in an embedding, without labels.

    Parameters
    ----------
    embedding
        Embedding of the spots (n, d).
    clusters
        Cluster of each spot (n,).

    Returns
    -------
    "silhouette" in [-1, 1] and "calinski_harabasz". Higher is better. Both are NaN if there is
    only one cluster, or one for each spot.

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
    is_defined = 1 < len(np.unique(clusters)) < len(embedding)
    return {
        name: float(score(embedding, clusters)) if is_defined else np.nan
        for name, score in scores.items()
    }


def classification_scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Score predicted classes as the paper does for its probes (table 1).

    Parameters
    ----------
    labels
        Class of each spot (n,).
    predicted
        Predicted class of each spot (n,).

    Returns
    -------
    "balanced_accuracy", the mean recall of the classes in `labels`, and "weighted_f1", the mean F1
    score of these classes, weighted by their frequency.

    Examples
    --------
    >>> stp.metrics.classification_scores(["a", "a", "b"], ["a", "b", "b"])["balanced_accuracy"]
    0.75
    """
    from sklearn.metrics import f1_score, recall_score

    present = np.unique(labels)
    recall = recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    f1 = f1_score(labels, predicted, labels=present, average="weighted", zero_division=0)
    return {"balanced_accuracy": float(recall), "weighted_f1": float(f1)}
