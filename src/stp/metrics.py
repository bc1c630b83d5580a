"""Scores of predictions, retrieval, clusters, probes and batches; arrays in, numbers out."""

from typing import NamedTuple

import numpy as np

from stp._splits import Fold, folds

__all__ = [
    "ScoredGenes",
    "batch_effect",
    "classification_scores",
    "clustering_scores",
    "expression_scores",
    "gene_pearson",
    "label_transfer",
    "recall_at_k",
    "scored_genes",
    "separation_scores",
]

BLOCK = 4096  # queries ranked at a time


class ScoredGenes(NamedTuple):
    """Columns of the genes that a prediction is scored on."""

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
    """
    values = np.asarray(expression)
    variable, expressed = (np.argsort(-of(axis=0), kind="stable")[:n_genes] for of in (values.var, values.mean))
    return ScoredGenes(variable, expressed)


def expression_scores(measured: np.ndarray, predicted: np.ndarray, genes: ScoredGenes) -> dict[str, float]:
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
    """
    r, union = gene_pearson(measured, predicted), np.union1d(genes.variable, genes.expressed)
    error = float(((np.asarray(measured)[:, union] - np.asarray(predicted)[:, union]) ** 2).mean())
    return {"PCC-V": float(r[genes.variable].mean()), "PCC-E": float(r[genes.expressed].mean()), "MSE": error}


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
    queries, references = np.asarray(queries), np.asarray(references)
    rank = np.empty(len(queries), dtype=int)
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ references.T
        own = scores[np.arange(len(scores)), start + np.arange(len(scores)), None]
        rank[start : start + BLOCK] = (~(scores < own)).sum(axis=1) - 1  # so that a query of NaN comes last
    return {k: float((rank < k).mean()) for k in ks}


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
    """
    from sklearn import metrics

    scores = {"silhouette": metrics.silhouette_score, "calinski_harabasz": metrics.calinski_harabasz_score}
    defined = 1 < len(np.unique(clusters)) < len(embedding)
    return {name: float(score(embedding, clusters)) if defined else np.nan for name, score in scores.items()}


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
    """
    from sklearn.metrics import f1_score, recall_score

    present = np.unique(labels)
    kept = {"labels": present, "zero_division": 0}
    return {
        "balanced_accuracy": float(recall_score(labels, predicted, average="macro", **kept)),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", **kept)),
    }


def batch_effect(
    embedding: np.ndarray, batches: np.ndarray, *, slides: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Tell how well the batch of a spot can be read off its embedding.

    It is read by linear discriminant analysis with shrinkage, of spots that this was not fitted on. Without a batch
    effect the accuracy is chance. :func:`label_transfer` says what biology is carried beside it.

    Parameters
    ----------
    embedding
        (n, d)
    batches
        (n,) slide or patient of each spot.
    slides
        (n,) where batches are patients of several slides: a slide's patient is then read from other slides, not from
        its own spots.
    seed
        Of the five random folds where `slides` is not given.

    Returns
    -------
    "batch_accuracy", balanced, and "batch_chance".

    Raises
    ------
    ValueError
        There is one batch, a batch has fewer spots than there are folds, or, with `slides`, only one slide.
    """
    batches = np.asarray(batches).astype(str)
    if slides is not None:
        slides = np.asarray(slides).astype(str)
        if single := [str(batch) for batch in np.unique(batches) if len(np.unique(slides[batches == batch])) < 2]:
            raise ValueError(f"batch {', '.join(single)} has one slide; it can be read from other slides of it only")
    return _read_off("batch", embedding, batches, folds(batches, slides, seed=seed))


def label_transfer(embedding: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    """Tell how well the class of a spot can be read off its embedding, in each batch from all others.

    Parameters
    ----------
    embedding
        (n, d)
    labels
        (n,) class of each spot.
    batches
        (n,) slide or patient of each spot.

    Returns
    -------
    "label_accuracy", balanced, and "label_chance".

    Raises
    ------
    ValueError
        There is one class or one batch.
    """
    return _read_off("label", embedding, labels, folds(labels, batches))


def _read_off(what: str, embedding: np.ndarray, classes: np.ndarray, parts: list[Fold]) -> dict[str, float]:
    """Read classes in each fold from the others."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    classes = np.asarray(classes).astype(str)
    found = np.empty_like(classes)
    for train, test in parts:
        n_classes = len(np.unique(classes[train]))
        if n_classes < 2:
            raise ValueError(f"{what} {str(classes[train][0])!r} is all that a fold is fitted on; give more slides")
        # Equal priors: a reader that knows nothing then scores chance, however many spots a class has.
        reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes))
        found[test] = reader.fit(embedding[train], classes[train]).predict(embedding[test])
    accuracy = classification_scores(classes, found)["balanced_accuracy"]
    return {f"{what}_accuracy": accuracy, f"{what}_chance": 1 / len(np.unique(classes))}
