"""Scores of predicted probabilities of classes."""

import warnings
from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import finite_arrays, flags, probabilities_of

SUM_TOLERANCE = 1e-3  # by which the probabilities of a patient may differ from 1 in sum


def binary_scores(
    is_positive: Sequence[int] | np.ndarray,
    probabilities: Sequence[float] | np.ndarray,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Score the probabilities of a positive class.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,), as booleans or as 0 and 1.
    probabilities
        Predicted probability of the positive class (n,).
    threshold
        Probability from which on the positive class is predicted.

    Returns
    -------
    "auroc"; "auprc", the average precision; "brier", the mean squared error of the probabilities;
    and at the threshold "accuracy", "balanced_accuracy", "f1", "sensitivity" and "specificity".
    A score that needs both classes is NaN if one is missing.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, a value is NaN, or a value is out of range.

    Examples
    --------
    >>> scores = stp.metrics.binary_scores([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
    >>> scores["auroc"]
    0.75
    >>> scores["sensitivity"]
    0.5
    """
    from sklearn.metrics import brier_score_loss

    labels, scores = finite_arrays(is_positive=is_positive, probabilities=probabilities)
    labels = flags("is_positive", labels)
    probabilities_of("probabilities", scores)
    return {
        **ranking_scores(labels, scores),
        "brier": float(brier_score_loss(labels, scores, pos_label=True)),
        **decision_scores(labels, scores >= threshold),
    }


def ranking_scores(is_positive: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return AUROC and average precision; both are NaN if a class is missing."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if is_positive.all() or not is_positive.any():
        return {"auroc": np.nan, "auprc": np.nan}
    return {
        "auroc": float(roc_auc_score(is_positive, scores)),
        "auprc": float(average_precision_score(is_positive, scores)),
    }


def decision_scores(is_positive: np.ndarray, is_predicted: np.ndarray) -> dict[str, float]:
    """Return the scores of a decision for each patient; those of a missing class are NaN."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(is_positive, is_predicted, labels=[False, True])
    (true_negative, false_positive), (false_negative, true_positive) = counts.tolist()
    sensitivity = _ratio(true_positive, true_positive + false_negative)
    specificity = _ratio(true_negative, true_negative + false_positive)
    return {
        "accuracy": (true_positive + true_negative) / len(is_positive),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "sensitivity": sensitivity,
        "specificity": specificity,
    }


def multiclass_scores(
    codes: Sequence[int] | np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    """Score the probabilities of several classes.

    Parameters
    ----------
    codes
        Number of the class of each patient (n,), which is a column of `probabilities`.
    probabilities
        Predicted probability of each class (n, n_classes).

    Returns
    -------
    "auroc" and "auprc", the means over classes, each against all others; "brier", the mean squared
    distance of the probabilities from the class, summed over classes; and for the most probable
    class "accuracy", "balanced_accuracy" and "f1", the mean over classes. "auroc" and "auprc" are
    NaN if a class has no patient, and so are "balanced_accuracy" and "f1".

    Raises
    ------
    ValueError
        The shapes do not fit, there is no patient, a value is NaN or out of range, or probabilities
        do not sum to 1.

    Examples
    --------
    >>> probabilities = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]]
    >>> stp.metrics.multiclass_scores([0, 1, 2, 2], probabilities)["accuracy"]
    0.75
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}; pass a row per patient and a column "
            "per class"
        )
    (codes,) = finite_arrays(codes=codes)
    if len(codes) != len(probabilities):
        raise ValueError(f"{len(codes)} codes do not fit {len(probabilities)} rows")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities has NaN or infinite values; leave these patients out")
    probabilities_of("probabilities", probabilities)
    n_classes = probabilities.shape[1]
    is_wrong = ~np.isin(codes, np.arange(n_classes))
    if is_wrong.any():
        raise ValueError(f"codes must be from 0 to {n_classes - 1}, not {codes[is_wrong][0]:g}")
    sums = probabilities.sum(axis=1)
    farthest = sums[np.abs(sums - 1).argmax()]
    if abs(farthest - 1) > SUM_TOLERANCE:
        raise ValueError(f"the probabilities of a patient sum to {farthest:g}, not to 1")
    codes = codes.astype(int)
    is_class = codes[:, None] == np.arange(n_classes)
    ranking = [ranking_scores(is_class[:, k], probabilities[:, k]) for k in range(n_classes)]
    return {
        "auroc": float(np.mean([scores["auroc"] for scores in ranking])),
        "auprc": float(np.mean([scores["auprc"] for scores in ranking])),
        "brier": float(((probabilities - is_class) ** 2).sum(axis=1).mean()),
        **class_decision_scores(codes, probabilities.argmax(axis=1), np.arange(n_classes)),
    }


def class_decision_scores(
    codes: np.ndarray, predicted: np.ndarray, classes: np.ndarray
) -> dict[str, float]:
    """Return accuracy, and means over these classes that are NaN if a class has no patient."""
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    scores = {"accuracy": float(accuracy_score(codes, predicted))}
    has_all = np.isin(classes, codes).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is never predicted has an F1 of 0
        recall = recall_score(codes, predicted, labels=classes, average="macro", zero_division=0)
        f1 = f1_score(codes, predicted, labels=classes, average="macro", zero_division=0)
    scores["balanced_accuracy"] = float(recall) if has_all else np.nan
    scores["f1"] = float(f1) if has_all else np.nan
    return scores


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else np.nan
