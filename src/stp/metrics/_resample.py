"""Resampled patients, and intervals and p-values from scores of resampled patients."""

from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import check_level


def resample(
    strata: Sequence[int] | np.ndarray, *, n_resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Draw patients with replacement, each group by itself: a stratified bootstrap.

    Parameters
    ----------
    strata
        Group of each patient (n,), such as the fold, or the fold and the class. Each resample has
        as many patients of a group as there are.
    n_resamples
        Number of resamples.
    seed
        Random seed for the resamples.

    Returns
    -------
    How often each patient is drawn in each resample (n_resamples, n), as int32. A score of a
    resample is the score of the patients, weighted with one row.

    Raises
    ------
    ValueError
        There is no patient, or no resample.

    Examples
    --------
    >>> draws = stp.metrics.resample(["a", "a", "b", "b", "b"], n_resamples=4)
    >>> draws[:, :2].sum(axis=1).tolist()
    [2, 2, 2, 2]
    """
    codes = np.unique(np.asarray(strata), return_inverse=True)[1]
    if not len(codes):
        raise ValueError("there is no patient to resample")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    rng = np.random.default_rng(seed)
    draws = np.empty((n_resamples, len(codes)), np.int32)
    for code in range(codes.max() + 1):
        rows = np.flatnonzero(codes == code)
        draws[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), n_resamples)
    return draws


def percentile_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Return the percentile interval of the scores of resamples (n,); NaN if one is undefined."""
    check_level(level)
    if not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided_p(differences: np.ndarray) -> float:
    """Return the p-value of no difference: the level of the percentile interval that touches 0.

    It is twice the smaller share of resamples on one side of 0. One is added to both counts, so
    that it is never 0.
    """
    if not np.isfinite(differences).all():
        return np.nan
    n_smallest = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1, 2 * (n_smallest + 1) / (len(differences) + 1)))
