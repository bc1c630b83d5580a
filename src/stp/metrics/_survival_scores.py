"""Scores of predicted risks: Uno's concordance, and Kaplan-Meier curves."""

from collections.abc import Sequence

import numpy as np

from stp.metrics._checks import check_level, finite_arrays, flags

BLOCK = 512  # patients whose pairs are compared at a time


def uno_concordance(
    times: Sequence[float] | np.ndarray,
    events: Sequence[int] | np.ndarray,
    risks: Sequence[float] | np.ndarray,
    *,
    max_time: float | None = None,
) -> float:
    """Return Uno's concordance index (2011), which does not depend on the censoring.

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
