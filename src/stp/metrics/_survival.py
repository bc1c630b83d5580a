"""Scores of predicted risks: the concordance with observed survival."""

from typing import Any

import numpy as np

BLOCK = 512  # patients whose pairs are compared at a time


def concordance(times: Any, events: Any, risks: Any) -> float:
    """Return the concordance index of Harrell: the share of pairs whose order the risk predicts.

    A pair can be compared if the patient with the shorter time had the event. If times are equal,
    it can be compared if exactly one had the event, who then counts as the shorter one. Equal
    risks count half.

    Parameters
    ----------
    times
        Times to the event or to the end of the observation (n,).
    events
        Whether the event was observed (n,), as booleans or as 0 and 1.
    risks
        Predicted risks (n,): higher means an earlier event.

    Returns
    -------
    A number from 0 to 1; 0.5 is chance. NaN if no pair can be compared.

    Raises
    ------
    ValueError
        The arrays have different lengths, or a value is NaN, or an event is not 0 or 1.

    Examples
    --------
    >>> stp.metrics.concordance([1, 2, 3, 4], [1, 1, 0, 1], [0.9, 0.7, 0.8, 0.1])
    0.8
    """
    times, events, risks = (np.asarray(values, np.float64) for values in (times, events, risks))
    if not times.shape == events.shape == risks.shape or times.ndim != 1:
        raise ValueError(
            f"times {times.shape}, events {events.shape} and risks {risks.shape} must be arrays of "
            "one length"
        )
    for name, values in (("times", times), ("events", events), ("risks", risks)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} have NaN or infinite values; leave these patients out")
    if not np.isin(events, (0, 1)).all():
        raise ValueError(f"events must be 0 or 1, not {events[~np.isin(events, (0, 1))][0]:g}")
    is_event = events == 1
    n_concordant = 0.0
    n_pairs = 0
    had_event = np.flatnonzero(is_event)
    for start in range(0, len(had_event), BLOCK):
        first = had_event[start : start + BLOCK, None]
        is_later = (times > times[first]) | ((times == times[first]) & ~is_event)
        n_pairs += int(is_later.sum())
        n_concordant += np.count_nonzero(is_later & (risks < risks[first]))
        n_concordant += np.count_nonzero(is_later & (risks == risks[first])) / 2
    return float(n_concordant / n_pairs) if n_pairs else float("nan")
