"""Survival of patients of high risk, compared with that of the others."""

import warnings
from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import check_level, finite_arrays, flags

LARGEST_LOG_RATIO = 12.0  # of hazards; a larger one means that the fit has no maximum


def compare_risk_groups(
    times: Sequence[float] | np.ndarray,
    events: Sequence[int] | np.ndarray,
    is_high: Sequence[int] | np.ndarray,
    *,
    strata: Sequence[int] | np.ndarray | None = None,
    level: float = 0.95,
) -> dict[str, float]:
    """Compare the survival of patients of high risk with that of the others.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    events
        Whether the event was observed (n,), as booleans or as 0 and 1.
    is_high
        Whether the risk of each patient is high (n,), as booleans or as 0 and 1.
    strata
        Group of each patient (n,), such as the fold. Patients are compared within groups.
    level
        Level of the intervals, such as 0.95.

    Returns
    -------
    "hazard_ratio" of a Cox regression (ties after Efron), above 1 if patients of high risk have
    earlier events; "low" and "high", its interval after Wald; "logrank_p", the p-value of the
    log-rank test. All are NaN if a group has no patient or there is no event to compare. The ratio
    is NaN if one group has no event.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, a value is NaN, a flag is not 0 or 1, or
        the level is not between 0 and 1.

    Examples
    --------
    >>> groups = [1, 1, 0, 1, 0, 0]
    >>> scores = stp.metrics.compare_risk_groups([1, 2, 3, 4, 5, 6], [1, 1, 1, 0, 1, 1], groups)
    >>> scores["hazard_ratio"] > 1
    True
    """
    times, event_numbers, group = finite_arrays(times=times, events=events, is_high=is_high)
    is_event = flags("events", event_numbers)
    group = flags("is_high", group).astype(float)
    check_level(level)
    if strata is not None:
        if len(strata) != len(times):
            raise ValueError(f"strata has {len(strata)} values for {len(times)} patients")
        strata = np.asarray(strata)
        # A stratum with one group compares nothing, and the solvers may fail on it.
        has_both = [np.ptp(group[strata == stratum]) > 0 for stratum in strata]
        times, is_event, group, strata = (a[has_both] for a in (times, is_event, group, strata))
    scores = dict.fromkeys(("hazard_ratio", "low", "high", "logrank_p"), np.nan)
    if len(np.unique(group[is_event])) == 2:
        scores |= _cox(times, is_event, group, strata, level)
    if is_event.any() and np.ptp(group) > 0:
        scores["logrank_p"] = _logrank(times, is_event, group, strata)
    return scores


def _cox(
    times: np.ndarray,
    is_event: np.ndarray,
    group: np.ndarray,
    strata: np.ndarray | None,
    level: float,
) -> dict[str, float]:
    from statsmodels.duration.hazard_regression import PHReg

    model = PHReg(times, group[:, None], is_event, strata=strata, ties="efron")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a ratio without a maximum is not returned
            result = model.fit(disp=False)
    except np.linalg.LinAlgError:  # one group comes first everywhere
        return {}
    interval = result.conf_int(alpha=1 - level)[0]
    if abs(result.params[0]) > LARGEST_LOG_RATIO or not np.isfinite(interval).all():
        return {}
    low, high = np.exp(interval)
    ratio = np.exp(result.params[0])
    return {"hazard_ratio": float(ratio), "low": float(low), "high": float(high)}


def _logrank(
    times: np.ndarray, is_event: np.ndarray, group: np.ndarray, strata: np.ndarray | None
) -> float:
    from statsmodels.duration.survfunc import survdiff

    try:
        return float(survdiff(times, is_event.astype(int), group, strata=strata)[1])
    except np.linalg.LinAlgError:  # no event has patients of both groups at risk
        return float("nan")
