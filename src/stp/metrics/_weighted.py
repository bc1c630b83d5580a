"""Scores of many resamples at once: patients with weights, a row of weights per resample.

The score of each row equals the score of patients that are repeated as often as their weight says.

A worked example: of patients with scores 1, 2, 3 and classes 0, 1, 0, a resample draws the first
twice and the second once, which are the weights 2, 1, 0. All pairs of a positive and a negative
patient are in order, so the AUROC is 1.
"""

import numpy as np

from stp.metrics._survival_scores import pair_counts, uncensored_share

Scores = dict[str, np.ndarray]  # name of a score: its values (n_rows,)


def weighted_binary_scores(
    is_positive: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> Scores:
    """Return AUROC, average precision and Brier score of each row of weights.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,).
    probabilities
        Predicted probability of the positive class (n,).
    weights
        How often each patient counts (n_rows, n).
    """
    weights = weights.astype(np.float64)
    return {
        **weighted_ranking_scores(is_positive, probabilities, weights),
        "brier": weights @ (probabilities - is_positive) ** 2 / weights.sum(axis=1),
    }


def weighted_ranking_scores(
    is_positive: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> Scores:
    """Return AUROC and average precision of each row of weights; NaN if it lacks a class."""
    positive, negative = cumulative_weights(is_positive, scores, weights)
    n_positive = positive[:, -1:]
    n_negative = negative[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = positive / n_positive
        false_share = negative / n_negative
        precision = positive / (positive + negative)
        auroc = (np.diff(false_share) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1)
        # Before the first patient who is drawn there is no precision, and recall does not rise.
        auprc = np.nansum(np.diff(recall) * precision[:, 1:], axis=1)
    has_both = (n_positive > 0)[:, 0] & (n_negative > 0)[:, 0]
    return {"auroc": np.where(has_both, auroc, np.nan), "auprc": np.where(has_both, auprc, np.nan)}


def cumulative_weights(
    is_positive: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of positive and of negative patients from the highest score downwards.

    Returns
    -------
    Two arrays (n_rows, n_scores + 1), with a column for each distinct score; the first is 0.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    sums = []
    for is_own in (is_positive[order], ~is_positive[order]):
        cumulative = np.cumsum(weights[:, order] * is_own, axis=1)[:, is_last]
        sums.append(np.concatenate([np.zeros((len(weights), 1)), cumulative], axis=1))
    return sums[0], sums[1]


def weighted_decision_scores(
    is_positive: np.ndarray, is_predicted: np.ndarray, weights: np.ndarray
) -> Scores:
    """Return the scores of decisions of each row of weights; those of a missing class are NaN."""
    weights = weights.astype(np.float64)
    true_positive = weights @ (is_positive & is_predicted)
    false_negative = weights @ (is_positive & ~is_predicted)
    true_negative = weights @ (~is_positive & ~is_predicted)
    false_positive = weights @ (~is_positive & is_predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        f1 = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
    return {
        "accuracy": (true_positive + true_negative) / weights.sum(axis=1),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": f1,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }


def weighted_class_scores(
    codes: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    *,
    classes: np.ndarray,
) -> Scores:
    """Return the scores of several classes of each row of weights; see `multiclass_scores`.

    Parameters
    ----------
    codes
        Number of the class of each patient (n,).
    probabilities
        Predicted probability of each class (n, n_classes).
    predicted
        Number of the predicted class of each patient (n,).
    weights
        How often each patient counts (n_rows, n).
    classes
        Numbers of the classes over which means are taken.
    """
    weights = weights.astype(np.float64)
    n_classes = probabilities.shape[1]
    is_class = codes[:, None] == np.arange(n_classes)
    is_predicted = predicted[:, None] == np.arange(n_classes)
    ranking = [
        weighted_ranking_scores(is_class[:, k], probabilities[:, k], weights) for k in classes
    ]
    decisions = [
        weighted_decision_scores(is_class[:, k], is_predicted[:, k], weights) for k in classes
    ]
    recall = np.mean([scores["sensitivity"] for scores in decisions], axis=0)
    f1 = np.mean([scores["f1"] for scores in decisions], axis=0)
    distances = ((probabilities - is_class) ** 2).sum(axis=1)
    return {
        "auroc": np.mean([scores["auroc"] for scores in ranking], axis=0),
        "auprc": np.mean([scores["auprc"] for scores in ranking], axis=0),
        "brier": weights @ distances / weights.sum(axis=1),
        "accuracy": weights @ (codes == predicted) / weights.sum(axis=1),
        "balanced_accuracy": recall,
        "f1": np.where(np.isfinite(recall), f1, np.nan),
    }


def weighted_value_scores(values: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> Scores:
    """Return the scores of predicted values of each row of weights; see `value_scores`.

    Parameters
    ----------
    values
        Measured value of each patient (n,).
    predicted
        Predicted value of each patient (n,).
    weights
        How often each patient counts (n_rows, n).
    """
    shares = weights / weights.sum(axis=1, keepdims=True)
    values_shift = values - values.mean()  # the same spread, with less rounding
    predicted_shift = predicted - predicted.mean()
    mean = shares @ values_shift
    mean_predicted = shares @ predicted_shift
    variance = shares @ values_shift**2 - mean**2
    variance_predicted = shares @ predicted_shift**2 - mean_predicted**2
    covariance = shares @ (values_shift * predicted_shift) - mean * mean_predicted
    squared_error = shares @ (values - predicted) ** 2
    has_spread = variance > 1e-12 * max(values.var(), 1e-300)
    has_both = has_spread & (variance_predicted > 1e-12 * max(predicted.var(), 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - squared_error / variance
        pearson = covariance / np.sqrt(variance * variance_predicted)
    return {
        "r2": np.where(has_spread, r2, np.nan),
        "pearson": np.where(has_both, pearson, np.nan),
        "mae": shares @ np.abs(values - predicted),
        "rmse": np.sqrt(squared_error),
    }


def weighted_risk_scores(
    times: np.ndarray, is_event: np.ndarray, risks: np.ndarray, weights: np.ndarray
) -> Scores:
    """Return Harrell's and Uno's concordance of each row of weights; NaN without a pair.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    is_event
        Whether the event was observed (n,).
    risks
        Predicted risks (n,).
    weights
        How often each patient counts (n_rows, n).
    """
    first_rows = np.flatnonzero(is_event)
    concordant, comparable = pair_counts(times, is_event, risks, first_rows)
    weights = weights.astype(np.float32)
    # The patients who outlive the first of a pair, for each row and each first patient.
    n_concordant = weights @ concordant.T
    n_comparable = weights @ comparable.T
    first_weights = weights[:, first_rows].astype(np.float64)
    shares = uncensored_share(times, is_event, weights)[:, first_rows]
    scores = {}
    for name, factor in (("harrell_c", 1.0), ("uno_c", 1 / np.maximum(shares, 1e-12) ** 2)):
        pairs = first_weights * factor
        with np.errstate(divide="ignore", invalid="ignore"):
            scores[name] = (pairs * n_concordant).sum(axis=1) / (pairs * n_comparable).sum(axis=1)
    return scores
