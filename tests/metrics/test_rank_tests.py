"""Rank tests over patients, compared with scipy, statsmodels and permutations."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.duration.survfunc import survdiff
from statsmodels.stats.multitest import multipletests

from stp.metrics._rank_tests import adjust_p, hazard_residuals, linear_rank_p, signed_rank_p


def test_signed_rank_is_exact_for_few_patients():
    values = np.random.default_rng(0).normal(0.4, 1, (9, 5))
    values[0, 2] = np.nan
    expected = []
    for column in values.T:
        own = column[np.isfinite(column)]
        ranks = stats.rankdata(np.abs(own))
        observed = ranks[own > 0].sum()
        signs = (np.arange(2 ** len(own))[:, None] >> np.arange(len(own))) & 1
        sums = signs @ ranks
        expected.append(min(1, 2 * min((sums <= observed).mean(), (sums >= observed).mean())))
    np.testing.assert_allclose(signed_rank_p(values), expected)


def test_five_patients_are_no_test():
    values = np.ones((6, 2)) * np.arange(1, 7)[:, None]
    values[3, 1] = np.nan
    p = signed_rank_p(values)
    assert p[0] == pytest.approx(2 / 2**6) and np.isnan(p[1])


def test_q_is_that_of_statsmodels_and_ignores_missing_tests():
    p = np.array([0.01, np.nan, 0.2, 0.03, 0.5])
    q = adjust_p(p)
    assert np.isnan(q[1])
    expected = multipletests(p[np.isfinite(p)], method="fdr_bh")[1]
    np.testing.assert_allclose(q[np.isfinite(p)], expected)
    assert np.isnan(adjust_p(np.array([np.nan]))).all()


def test_one_stratum_of_classes_is_mann_whitney():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    predictions = rng.normal(0.5 * labels)
    p = linear_rank_p(predictions, labels.astype(float), np.zeros(40))
    test = stats.mannwhitneyu(
        predictions[labels == 1],
        predictions[labels == 0],
        alternative="greater",
        method="asymptotic",
        use_continuity=False,
    )
    assert p == pytest.approx(test.pvalue)


def test_strata_are_permuted_by_themselves():
    rng = np.random.default_rng(1)
    strata = np.repeat([0, 1, 2], [12, 15, 9])
    labels = rng.normal(size=36)
    predictions = 0.3 * labels + rng.normal(size=36) + 10 * strata

    def statistic(labels):
        total = 0
        for stratum in range(3):
            own = strata == stratum
            ranks = stats.rankdata(predictions[own]) / own.sum()
            total += (ranks - ranks.mean()) @ (labels[own] - labels[own].mean())
        return total

    drawn = []
    for _ in range(1500):
        permuted = labels.copy()
        for stratum in range(3):
            own = np.flatnonzero(strata == stratum)
            permuted[own] = labels[rng.permutation(own)]
        drawn.append(statistic(permuted))
    expected = (np.array(drawn) >= statistic(labels)).mean()
    assert linear_rank_p(predictions, labels, strata) == pytest.approx(expected, abs=0.03)


def test_equal_labels_are_no_test():
    assert np.isnan(linear_rank_p(np.arange(5.0), np.ones(5), np.zeros(5)))
    assert np.isnan(linear_rank_p(np.arange(2.0), np.array([0.0, 1.0]), np.arange(2)))


def test_residuals_are_events_minus_expected_events():
    times = np.array([1.0, 2.0, 2.0, 3.0])
    events = np.array([1.0, 1.0, 0.0, 1.0])
    hazards = [1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 1]
    np.testing.assert_allclose(hazard_residuals(times, events), events - hazards)
    assert hazard_residuals(times, events).sum() == pytest.approx(0)


def test_the_test_of_residuals_is_close_to_the_log_rank_test():
    rng = np.random.default_rng(2)
    group = np.arange(80) % 2
    times = rng.exponential(np.where(group == 1, 300, 500))
    events = (rng.random(80) < 0.8).astype(float)
    p = linear_rank_p(group.astype(float), hazard_residuals(times, events), np.zeros(80))
    _, two_sided = survdiff(times, events, group)
    assert p == pytest.approx(two_sided / 2, rel=0.5)
