"""Tests over patients by ranks, and p-values of many tests."""

import numpy as np
from scipy import stats

MIN_PATIENTS = 6  # with fewer, no signed-rank test gives p < 0.05


def signed_rank_p(values: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of each column (n_columns,) by Wilcoxon's signed-rank test.

    NaN is left out. A column with fewer than six values has none, because no order of five signs
    gives p < 0.05.

    Parameters
    ----------
    values
        Effect of each patient (n_patients, n_columns).
    """
    p = np.full(values.shape[1], np.nan)
    is_finite = np.isfinite(values)
    is_testable = is_finite.sum(axis=0) >= MIN_PATIENTS
    is_whole = is_finite.all(axis=0) & is_testable
    if is_whole.any():
        p[is_whole] = stats.wilcoxon(values[:, is_whole], axis=0).pvalue
    for column in np.flatnonzero(is_testable & ~is_whole):
        p[column] = stats.wilcoxon(values[is_finite[:, column], column]).pvalue
    return p


def adjust_p(p: np.ndarray) -> np.ndarray:
    """Return q-values (n,) after Benjamini and Hochberg; NaN stays NaN and is no test."""
    q = np.full(len(p), np.nan)
    is_tested = np.isfinite(p)
    if is_tested.any():
        q[is_tested] = stats.false_discovery_control(p[is_tested])
    return q


def linear_rank_p(predictions: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    """Return the one-sided p-value that predictions do not rise with labels.

    Predictions are ranked within each stratum, and labels are permuted within it. The statistic is
    the sum of products, with its exact mean and variance under permutation, and a normal
    approximation. With labels 0 and 1 this is van Elteren's test with equal weights, and with one
    stratum the test of Mann and Whitney.

    Parameters
    ----------
    predictions
        Prediction of each patient (n,).
    labels
        Label of each patient (n,), as a number.
    strata
        Stratum of each patient (n,), such as the model that predicted it.

    Returns
    -------
    The p-value; NaN if no stratum has different predictions and different labels.
    """
    total = 0.0
    variance = 0.0
    for stratum in np.unique(strata):
        is_inside = strata == stratum
        n = int(is_inside.sum())
        if n < 2:
            continue
        ranks = stats.rankdata(predictions[is_inside]) / n
        ranks -= ranks.mean()
        centered = labels[is_inside] - labels[is_inside].mean()
        total += float(ranks @ centered)
        variance += float((ranks @ ranks) * (centered @ centered)) / (n - 1)
    return float(stats.norm.sf(total / np.sqrt(variance))) if variance > 0 else np.nan


def hazard_residuals(times: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return by how much each patient (n,) had the event earlier than expected.

    It is the martingale residual, the event minus the cumulative hazard of Nelson and Aalen at the
    time of the patient. Its rank test is close to the log-rank test.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    events
        Whether the event was observed (n,).
    """
    unique, position = np.unique(times, return_inverse=True)
    n_events = np.bincount(position, events, minlength=len(unique))
    n_at_time = np.bincount(position, minlength=len(unique))
    n_at_risk = len(times) - np.cumsum(n_at_time) + n_at_time
    hazard = np.cumsum(n_events / n_at_risk)
    return events - hazard[position]
