"""Harrell's concordance equals a loop over all pairs."""

import numpy as np
import pytest

from stp.metrics import concordance


def by_loop(times, events, risks):
    total, n_pairs = 0.0, 0
    for i in range(len(times)):
        for j in range(len(times)):
            comes_first = times[i] < times[j] or (times[i] == times[j] and not events[j])
            if i == j or not events[i] or not comes_first:
                continue
            n_pairs += 1
            total += 1.0 if risks[i] > risks[j] else 0.5 if risks[i] == risks[j] else 0.0
    return total / n_pairs


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_a_loop_over_pairs_with_ties_of_times_and_risks(seed):
    rng = np.random.default_rng(seed)
    n = 600 if seed == 0 else 60  # more than a block of patients with an event
    times = rng.integers(1, 15, n)
    events = rng.random(n) < (0.95 if seed == 0 else 0.5)
    risks = rng.integers(0, 8, n) / 4
    if seed == 0:
        times, events, risks = times.astype(float), events.astype(int), risks
    assert concordance(times, events, risks) == pytest.approx(by_loop(times, events, risks))


def test_a_risk_that_falls_with_time_is_one_and_its_negative_is_zero():
    times = np.arange(1, 9)
    assert concordance(times, np.ones(8), -times) == 1.0
    assert concordance(times, np.ones(8), times) == 0.0
    assert concordance(times, np.ones(8), np.zeros(8)) == 0.5


def test_without_a_pair_to_compare_it_is_nan():
    assert np.isnan(concordance([1, 2], [0, 1], [1, 0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1], [0, 1]), "arrays of one length"),
        (([1, np.nan], [1, 1], [0, 1]), "times have NaN"),
        (([1, 2], [1, 2], [0, 1]), "events must be 0 or 1, not 2"),
    ],
)
def test_wrong_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        concordance(*arguments)
