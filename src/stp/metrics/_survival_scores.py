"""Scores of predicted risks: Uno's concordance, Kaplan-Meier curves and two groups of risk."""

import warnings
from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import finite_arrays, flags

BLOCK = 512  # patients whose pairs are compared at a time
LARGEST_LOG_RATIO = 12.0  # of hazards; a larger one means that the fit has no maximum


def uno_concordance(
    times: Sequence[float] | np.ndarray,
    events: Sequence[int] | np.ndarray,
    risks: Sequence[float] | np.ndarray,
    *,
    max_time: float | None = None,
) -> float:
    """Return the concordance index of Uno et al. 2011, which does not depend on the censoring.

    Pairs are those of :func:`stp.metrics.concordance`. The weight of a pair is 1 / G(t)², where t
    is its shorter time and G(t) the Kaplan-Meier estimate of the share of patients whose
    observation has not ended before t.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    events
        Whether the event was observed (n,), as booleans or as 0 and 1.
    risks
        Predicted risks (n,): higher means an earlier event.
    max_time
        Events at this time and later do not count. By default all count; the latest ones may then
        have large weights.

    Returns
    -------
    A number from 0 to 1; 0.5 is chance. NaN if no pair can be compared.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, a value is NaN, or an event is not 0 or 1.

    Examples
    --------
    >>> round(stp.metrics.uno_concordance([1, 2, 3, 4], [1, 1, 0, 1], [0.9, 0.7, 0.8, 0.1]), 3)
    0.8
    """
    times, event_numbers, risks = finite_arrays(times=times, events=events, risks=risks)
    is_event = flags("events", event_numbers)
    weights = np.ones((1, len(times)))
    pair_weights = 1 / uncensored_share(times, is_event, weights)[0] ** 2
    first_rows = np.flatnonzero(is_event & (times < (np.inf if max_time is None else max_time)))
    concordant, comparable = pair_counts(times, is_event, risks, first_rows)
    total = (comparable.sum(axis=1) * pair_weights[first_rows]).sum()
    if not total:
        return float("nan")
    return float((concordant.sum(axis=1) * pair_weights[first_rows]).sum() / total)


def pair_counts(
    times: np.ndarray, is_event: np.ndarray, risks: np.ndarray, first_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pair whether it is concordant, and whether it can be compared.

    Parameters
    ----------
    times
        Times (n,).
    is_event
        Whether the event was observed (n,).
    risks
        Predicted risks (n,).
    first_rows
        Rows of patients with an event (n_first,), who are the first of a pair.

    Returns
    -------
    Two arrays (n_first, n) of float32; equal risks are concordant by 0.5.
    """
    concordant = np.empty((len(first_rows), len(times)), np.float32)
    comparable = np.empty((len(first_rows), len(times)), np.float32)
    for start in range(0, len(first_rows), BLOCK):
        first = first_rows[start : start + BLOCK, None]
        is_later = (times > times[first]) | ((times == times[first]) & ~is_event)
        rows = slice(start, start + BLOCK)
        comparable[rows] = is_later
        concordant[rows] = is_later * ((risks < risks[first]) + 0.5 * (risks == risks[first]))
    return concordant, comparable


def uncensored_share(times: np.ndarray, is_event: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return G(t) just before the time of each patient, for each row of weights of patients.

    Parameters
    ----------
    times
        Times (n,).
    is_event
        Whether the event was observed (n,).
    weights
        How often each patient counts (n_rows, n).

    Returns
    -------
    An array (n_rows, n). An event comes before a censoring at the same time.
    """
    distinct, codes = np.unique(times, return_inverse=True)
    n_rows = len(weights)
    order = np.argsort(times, kind="stable")
    starts = np.searchsorted(times[order], distinct)
    ordered = weights[:, order].astype(np.float64)
    total = np.add.reduceat(ordered, starts, axis=1)
    n_events = np.add.reduceat(ordered * is_event[order], starts, axis=1)
    n_censored = total - n_events
    at_risk = total[:, ::-1].cumsum(axis=1)[:, ::-1] - n_events
    shares = 1 - n_censored / np.maximum(at_risk, 1e-12)
    survival = np.cumprod(np.clip(shares, 0, 1), axis=1)
    before = np.concatenate([np.ones((n_rows, 1)), survival[:, :-1]], axis=1)
    return before[:, codes]


def kaplan_meier(
    times: Sequence[float] | np.ndarray,
    events: Sequence[int] | np.ndarray,
    *,
    level: float = 0.95,
) -> dict[str, np.ndarray]:
    """Estimate the share of patients without an event over time, after Kaplan and Meier.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    events
        Whether the event was observed (n,), as booleans or as 0 and 1.
    level
        Level of the intervals, such as 0.95.

    Returns
    -------
    Arrays with a value for time 0 and each time at which an observation ends: "time"; "survival";
    "low" and "high", its pointwise interval from Greenwood's variance of log(-log(survival));
    "n_at_risk", the number of patients just before this time; "n_events" and "n_censored" at it.

    Raises
    ------
    ValueError
        The arrays have different lengths or no patient, a value is NaN, an event is not 0 or 1, or
        the level is not between 0 and 1.

    Examples
    --------
    >>> curve = stp.metrics.kaplan_meier([1, 2, 3, 4], [1, 0, 1, 1])
    >>> curve["survival"].round(3).tolist()
    [1.0, 0.75, 0.75, 0.375, 0.0]
    """
    from scipy.stats import norm
    from statsmodels.duration.survfunc import SurvfuncRight

    times, event_numbers = finite_arrays(times=times, events=events)
    is_event = flags("events", event_numbers)
    if (times < 0).any():
        raise ValueError(f"times must not be negative, but one is {times.min():g}")
    check_level(level)
    distinct = np.unique(np.append(times, 0))
    n_events = np.array([(is_event & (times == time)).sum() for time in distinct])
    n_ends = np.array([(times == time).sum() for time in distinct])
    n_at_risk = np.array([(times >= time).sum() for time in distinct])
    curve = np.ones(len(distinct))
    error = np.zeros(len(distinct))
    if is_event.any():
        estimate = SurvfuncRight(times, is_event)
        position = np.searchsorted(estimate.surv_times, distinct, side="right") - 1
        curve = np.where(position < 0, 1, estimate.surv_prob[position])
        error = np.where(position < 0, 0, estimate.surv_prob_se[position])
    width = norm.ppf((1 + level) / 2) * _log_log_error(curve, error)
    with np.errstate(over="ignore"):
        low = curve ** np.exp(width)
        high = curve ** np.exp(-width)
    return {
        "time": distinct,
        "survival": curve,
        "low": low,
        "high": high,
        "n_at_risk": n_at_risk,
        "n_events": n_events,
        "n_censored": n_ends - n_events,
    }


def _log_log_error(curve: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the standard error of log(-log(curve)); NaN where the curve is 0 and has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        transformed = error / (curve * np.abs(np.log(curve)))
    return np.where(curve == 1, 0, np.where(curve == 0, np.nan, transformed))


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


def check_level(level: float) -> None:
    """Raise ValueError if the level of an interval is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level}")
