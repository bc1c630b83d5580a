"""Whether predicted probabilities are the shares of patients that are positive."""

from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import finite_arrays, flags, probabilities_of

SMALLEST_PROBABILITY = 1e-7  # so that logits are finite
N_STEPS = 50  # of Newton's method, which needs fewer than ten
TOLERANCE = 1e-8  # of the last step
STEEPEST = 1e4  # a steeper line means that the classes are separated
PATIENTS_PER_BIN = 5  # at least, in the calibration error


def calibration(
    is_positive: Sequence[int] | np.ndarray,
    probabilities: Sequence[float] | np.ndarray,
    *,
    n_bins: int = 10,
) -> dict[str, float]:
    """Measure whether probabilities are the shares of patients that are positive.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,), as booleans or as 0 and 1.
    probabilities
        Predicted probability of the positive class (n,).
    n_bins
        Number of bins with equally many patients, of which each has five or more; a small cohort
        has fewer bins.

    Returns
    -------
    "slope" of a logistic regression of the class on the logit of the probability: below 1 if
    probabilities are too extreme; "intercept" of the same regression with a slope of 1: negative if
    probabilities are too high on average; "ece", the expected calibration error. "slope" and
    "intercept" are NaN if there is one class, and "slope" also if the probabilities separate the
    classes or are all the same. The definitions are those of Van Calster et al. 2019.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, a value is NaN, or a value is out of range.

    Examples
    --------
    >>> scores = stp.metrics.calibration([0, 1, 0, 1, 1], [0.2, 0.3, 0.6, 0.7, 0.9])
    >>> round(scores["slope"], 2)
    0.92
    """
    labels, scores = finite_arrays(is_positive=is_positive, probabilities=probabilities)
    labels = flags("is_positive", labels)
    probabilities_of("probabilities", scores)
    weights = np.ones((1, len(labels)))
    slope, intercept = recalibration(labels, scores, weights)
    return {
        "slope": float(slope[0]),
        "intercept": float(intercept[0]),
        "ece": calibration_error(labels, scores, n_bins),
    }


def recalibration(
    is_positive: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope, and intercept with a slope of 1, for each row of weights of patients.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,).
    probabilities
        Predicted probability of the positive class (n,).
    weights
        How often each patient counts (n_rows, n).
    """
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logits = np.log(clipped / (1 - clipped))
    labels = is_positive.astype(np.float64)
    return _slope(labels, logits, weights), _intercept(labels, logits, weights)


def _slope(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit labels = sigmoid(a + b logits) by Newton's method, and return b of each row."""
    n_rows = len(weights)
    a = np.zeros(n_rows)
    b = np.ones(n_rows)
    is_settled = np.zeros(n_rows, bool)
    is_lost = _has_one_class(labels, weights)
    for _ in range(N_STEPS):
        active = np.flatnonzero(~is_settled & ~is_lost)
        if not len(active):
            break
        rows = weights[active]
        predicted = _sigmoid(a[active, None] + b[active, None] * logits)
        residual = rows * (labels - predicted)
        gradient_a = residual.sum(axis=1)
        gradient_b = residual @ logits
        curvature = rows * predicted * (1 - predicted)
        h_aa = curvature.sum(axis=1)
        h_ab = curvature @ logits
        h_bb = curvature @ logits**2
        determinant = h_aa * h_bb - h_ab**2
        is_flat = determinant <= 1e-10 * np.maximum(h_aa * h_bb, 1e-30)
        determinant[is_flat] = 1
        step_a = (h_bb * gradient_a - h_ab * gradient_b) / determinant
        step_b = (h_aa * gradient_b - h_ab * gradient_a) / determinant
        longest = np.maximum(np.maximum(np.abs(step_a), np.abs(step_b)), 1)
        a[active] += step_a / longest  # steps of at most 1 do not jump over the maximum
        b[active] += step_b / longest
        is_settled[active] = np.maximum(np.abs(step_a), np.abs(step_b)) < TOLERANCE
        is_lost[active] = is_flat | (np.abs(b[active]) > STEEPEST)
    return np.where(is_settled & ~is_lost, b, np.nan)


def _intercept(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit labels = sigmoid(a + logits) by Newton's method, and return a of each row."""
    a = np.zeros(len(weights))
    n_positive = weights @ labels
    for _ in range(N_STEPS):
        predicted = _sigmoid(a[:, None] + logits)
        gradient = n_positive - (weights * predicted).sum(axis=1)
        curvature = (weights * predicted * (1 - predicted)).sum(axis=1)
        step = gradient / np.maximum(curvature, 1e-30)
        a += np.clip(step, -1, 1)
        if np.abs(step).max() < TOLERANCE:
            break
    return np.where(_has_one_class(labels, weights), np.nan, a)


def _has_one_class(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n_positive = weights @ labels
    return (n_positive == 0) | (n_positive == weights.sum(axis=1))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(values)


def calibration_error(is_positive: np.ndarray, probabilities: np.ndarray, n_bins: int) -> float:
    """Return the mean distance of probability and share of positives over bins of patients."""
    bins = equal_bins(probabilities, n_bins)
    gaps = [abs(probabilities[rows].mean() - is_positive[rows].mean()) for rows in bins]
    sizes = [len(rows) for rows in bins]
    return float(np.average(gaps, weights=sizes))


def equal_bins(probabilities: np.ndarray, n_bins: int) -> list[np.ndarray]:
    """Return the rows of bins with about equally many patients, from low to high probability.

    Patients of one probability are in one bin.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, not {n_bins}")
    n_bins = max(1, min(n_bins, len(probabilities) // PATIENTS_PER_BIN))
    order = np.argsort(probabilities, kind="stable")
    cuts = np.arange(1, n_bins) * len(order) / n_bins
    ordered = probabilities[order]
    starts = np.searchsorted(ordered, ordered[np.round(cuts).astype(int)], side="left")
    return [rows for rows in np.split(order, np.unique(starts)) if len(rows)]
