"""ROC and precision-recall curves at fixed points, for many resamples at once."""

import numpy as np

from stp.metrics._weighted import cumulative_weights


def roc_points(
    is_positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Return the sensitivity at each share of false positives.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,).
    scores
        Score of each patient (n,).
    weights
        How often each patient counts (n_rows, n).
    grid
        Shares of negative patients above the threshold (n_points,), from 0 to 1.

    Returns
    -------
    An array (n_rows, n_points). Corners are connected by straight lines. A vertical step counts
    with its upper end.
    """
    positive, negative = cumulative_weights(is_positive, scores, weights)
    false_share = negative / negative[:, -1:]
    sensitivity = positive / positive[:, -1:]
    rows = zip(false_share, sensitivity, strict=True)
    return np.array([_interpolate(grid, x, y) for x, y in rows])


def _interpolate(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate between the upper end of the step on the left and the lower end on the right."""
    right = np.searchsorted(x, grid, side="right")
    last = len(x) - 1
    before = np.clip(right - 1, 0, last)
    after = np.clip(right, 0, last)
    width = np.where(x[after] > x[before], x[after] - x[before], 1)
    share = np.where(right > last, 0, (grid - x[before]) / width)
    return y[before] + share * (y[after] - y[before])


def precision_points(
    is_positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Return the precision at each recall.

    Parameters
    ----------
    is_positive
        Whether each patient is positive (n,).
    scores
        Score of each patient (n,).
    weights
        How often each patient counts (n_rows, n).
    grid
        Shares of positive patients above the threshold (n_points,), above 0 and up to 1.

    Returns
    -------
    An array (n_rows, n_points): the precision at the highest threshold that reaches the recall,
    as in the average precision.
    """
    positive, negative = cumulative_weights(is_positive, scores, weights)
    recall = positive / positive[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = positive / (positive + negative)
    last = recall.shape[1] - 1
    points = np.empty((len(weights), len(grid)))
    for row in range(len(weights)):
        position = np.searchsorted(recall[row], grid - 1e-12, side="left")
        points[row] = precision[row, np.minimum(position, last)]
    return points
