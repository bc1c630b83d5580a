"""Scores of predicted values."""

from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import finite_arrays


def value_scores(
    values: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """Score predicted values.

    Parameters
    ----------
    values
        Measured value of each patient (n,).
    predicted
        Predicted value of each patient (n,).

    Returns
    -------
    "r2", the share of the variance that is explained, which is negative if the mean would be
    better; "pearson"; "mae", the mean absolute error; "rmse", the root of the mean squared error.
    "r2" is NaN if all values are the same. "pearson" is NaN also if all predictions are the same.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, or a value is NaN.

    Examples
    --------
    >>> stp.metrics.value_scores([1, 2, 3], [1, 2, 4])["mae"]
    0.3333333333333333
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    measured, estimates = finite_arrays(values=values, predicted=predicted)
    has_spread = np.ptp(measured) > 0
    has_both = has_spread and np.ptp(estimates) > 0
    return {
        "r2": float(r2_score(measured, estimates)) if has_spread else np.nan,
        "pearson": float(np.corrcoef(measured, estimates)[0, 1]) if has_both else np.nan,
        "mae": float(mean_absolute_error(measured, estimates)),
        "rmse": float(root_mean_squared_error(measured, estimates)),
    }
