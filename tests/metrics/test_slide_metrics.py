"""Scores of patients against scikit-learn, statsmodels and slow loops."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.special import expit, logit

from stp import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def binary(rng):
    """Draw 60 patients, with ties of probabilities."""
    is_positive = rng.random(60) < 0.4
    probabilities = np.round(expit(rng.normal(size=60) + is_positive), 1)
    return is_positive, probabilities


@pytest.fixture
def survival(rng):
    """Draw 50 patients, with ties of times and of risks."""
    risks = np.round(rng.normal(size=50), 1)
    times = np.ceil(rng.exponential(20 * np.exp(-risks)))
    limit = np.ceil(rng.exponential(30, 50))
    return np.minimum(times, limit), times <= limit, risks


def test_binary_scores_are_those_of_scikit_learn(binary):
    is_positive, probabilities = binary
    scores = metrics.binary_scores(is_positive, probabilities, threshold=0.6)
    predicted = probabilities >= 0.6
    assert scores == pytest.approx(
        {
            "auroc": sklearn.metrics.roc_auc_score(is_positive, probabilities),
            "auprc": sklearn.metrics.average_precision_score(is_positive, probabilities),
            "brier": np.mean((probabilities - is_positive) ** 2),
            "accuracy": np.mean(predicted == is_positive),
            "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(is_positive, predicted),
            "f1": sklearn.metrics.f1_score(is_positive, predicted),
            "sensitivity": sklearn.metrics.recall_score(is_positive, predicted),
            "specificity": sklearn.metrics.recall_score(~is_positive, ~predicted),
        }
    )


def test_scores_that_need_two_classes_are_nan_with_one():
    scores = metrics.binary_scores([1, 1], [0.2, 0.9])
    assert scores["accuracy"] == scores["sensitivity"] == 0.5
    undefined = {name for name, value in scores.items() if np.isnan(value)}
    assert undefined == {"auroc", "auprc", "specificity", "balanced_accuracy"}
    assert np.isnan(metrics.calibration([1, 1], [0.2, 0.9])["slope"])


def test_several_classes_are_scored_one_against_the_others(rng):
    codes = rng.integers(0, 3, 40)
    probabilities = rng.dirichlet([1, 1, 1], 40)
    scores = metrics.multiclass_scores(codes, probabilities)
    predicted = probabilities.argmax(axis=1)
    auroc = sklearn.metrics.roc_auc_score(codes, probabilities, multi_class="ovr", average="macro")
    auprc = [
        sklearn.metrics.average_precision_score(codes == k, probabilities[:, k]) for k in range(3)
    ]
    assert scores["auroc"] == pytest.approx(auroc)
    assert scores["auprc"] == pytest.approx(np.mean(auprc))
    assert scores["brier"] == pytest.approx(((probabilities - np.eye(3)[codes]) ** 2).sum(1).mean())
    balanced = sklearn.metrics.balanced_accuracy_score(codes, predicted)
    assert scores["balanced_accuracy"] == pytest.approx(balanced)
    assert scores["f1"] == pytest.approx(
        sklearn.metrics.f1_score(codes, predicted, average="macro")
    )


def test_a_class_without_patients_has_no_macro_score():
    scores = metrics.multiclass_scores([0, 1], [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]])
    assert scores["accuracy"] == 1
    assert np.isnan([scores["auroc"], scores["balanced_accuracy"], scores["f1"]]).all()


def test_value_scores_are_those_of_scikit_learn(rng):
    values = rng.normal(size=30)
    predicted = values + rng.normal(size=30)
    assert metrics.value_scores(values, predicted) == pytest.approx(
        {
            "r2": sklearn.metrics.r2_score(values, predicted),
            "pearson": np.corrcoef(values, predicted)[0, 1],
            "mae": np.abs(values - predicted).mean(),
            "rmse": np.sqrt(((values - predicted) ** 2).mean()),
        }
    )


def test_slope_and_intercept_are_those_of_statsmodels(binary):
    import statsmodels.api as sm

    is_positive, probabilities = binary
    probabilities = np.clip(probabilities, 0.05, 0.95)
    logits = logit(probabilities)
    family = sm.families.Binomial()
    slope = sm.GLM(is_positive, sm.add_constant(logits), family).fit().params[1]
    ones = np.ones((len(logits), 1))
    intercept = sm.GLM(is_positive, ones, family, offset=logits).fit().params[0]
    scores = metrics.calibration(is_positive, probabilities)
    assert scores["slope"] == pytest.approx(slope)
    assert scores["intercept"] == pytest.approx(intercept)


def test_perfect_probabilities_have_slope_one_and_extreme_ones_less(rng):
    probabilities = rng.random(20_000)
    is_positive = rng.random(20_000) < probabilities
    scores = metrics.calibration(is_positive, probabilities)
    assert scores["slope"] == pytest.approx(1, abs=0.05)
    assert scores["intercept"] == pytest.approx(0, abs=0.05)
    assert scores["ece"] < 0.02
    extreme = metrics.calibration(is_positive, expit(2 * logit(probabilities)))
    assert extreme["slope"] == pytest.approx(0.5, abs=0.03)
    too_high = metrics.calibration(is_positive, expit(logit(probabilities) + 1))
    assert too_high["intercept"] == pytest.approx(-1, abs=0.1)


def test_separated_classes_have_no_slope():
    scores = metrics.calibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert np.isnan(scores["slope"])
    assert np.isfinite(scores["intercept"])
    assert np.isnan(metrics.calibration([0, 1, 0, 1], [0.5] * 4)["slope"])


def test_calibration_error_of_equally_large_bins():
    probabilities = np.repeat([0.1, 0.3, 0.6, 0.9], 10)
    is_positive = np.concatenate([np.arange(10) < n for n in (1, 5, 6, 7)])
    scores = metrics.calibration(is_positive, probabilities, n_bins=4)
    assert scores["ece"] == pytest.approx((0 + 0.2 + 0 + 0.2) / 4)


def slow_uno(times, events, risks, max_time=np.inf):
    """Sum over all pairs, with the share of uncensored patients by its definition."""
    numerator = denominator = 0.0
    for i in range(len(times)):
        if not events[i] or times[i] >= max_time:
            continue
        share = 1.0
        for limit in np.unique(times[(times < times[i]) & ~events]):
            n_at_risk = (times > limit).sum() + ((times == limit) & ~events).sum()
            share *= 1 - ((times == limit) & ~events).sum() / n_at_risk
        for j in range(len(times)):
            if times[j] > times[i] or (times[j] == times[i] and not events[j]):
                denominator += share**-2
                numerator += share**-2 * ((risks[j] < risks[i]) + 0.5 * (risks[j] == risks[i]))
    return numerator / denominator


def test_uno_concordance_is_that_of_a_slow_loop(survival):
    assert metrics.uno_concordance(*survival) == pytest.approx(slow_uno(*survival))
    assert metrics.uno_concordance(*survival, max_time=10) == pytest.approx(slow_uno(*survival, 10))


def test_without_censoring_uno_is_harrell(survival):
    times, _, risks = survival
    events = np.ones(len(times))
    assert metrics.uno_concordance(times, events, risks) == pytest.approx(
        metrics.concordance(times, events, risks)
    )


def test_kaplan_meier_is_the_product_over_events(survival):
    times, events, _ = survival
    curve = metrics.kaplan_meier(times, events)
    share = 1.0
    variance = 0.0
    for row, time in enumerate(curve["time"]):
        n_at_risk = (times >= time).sum()
        n_events = (events & (times == time)).sum()
        share *= 1 - n_events / n_at_risk
        if 0 < share < 1:
            variance += n_events / (n_at_risk * (n_at_risk - n_events))
            width = 1.959964 * np.sqrt(variance) / abs(np.log(share))
            assert curve["low"][row] == pytest.approx(share ** np.exp(width))
            assert curve["high"][row] == pytest.approx(share ** np.exp(-width))
        assert curve["survival"][row] == pytest.approx(share)
        assert (curve["n_at_risk"][row], curve["n_events"][row]) == (n_at_risk, n_events)
    assert curve["n_events"].sum() + curve["n_censored"].sum() == len(times)


def slow_logrank(times, events, is_high):
    from scipy.stats import chi2

    difference = variance = 0.0
    for time in np.unique(times[events]):
        n = (times >= time).sum()
        n_high = ((times >= time) & is_high).sum()
        d = (events & (times == time)).sum()
        difference += (events & (times == time) & is_high).sum() - d * n_high / n
        if n > 1:
            variance += d * n_high / n * (1 - n_high / n) * (n - d) / (n - 1)
    return chi2.sf(difference**2 / variance, 1)


def test_logrank_is_that_of_a_slow_loop_and_high_risk_has_a_ratio_above_one(survival):
    times, events, risks = survival
    is_high = risks > np.median(risks)
    scores = metrics.compare_risk_groups(times, events, is_high)
    assert scores["logrank_p"] == pytest.approx(slow_logrank(times, events, is_high))
    assert 1 < scores["low"] < scores["hazard_ratio"] < scores["high"]
    reverse = metrics.compare_risk_groups(times, events, ~is_high)
    assert reverse["hazard_ratio"] == pytest.approx(1 / scores["hazard_ratio"], rel=1e-4)
    assert metrics.concordance(times, events, risks) > 0.5


def test_cox_ratio_is_the_maximum_of_the_likelihood():
    from scipy.optimize import minimize_scalar

    times = np.array([2.0, 3, 5, 7, 8, 11, 12, 13])
    events = np.array([1, 1, 1, 1, 0, 1, 1, 0], bool)
    is_high = np.array([1, 0, 1, 1, 1, 0, 0, 0], bool)

    def loss(log_ratio):
        hazards = np.exp(log_ratio * is_high)
        return -sum(
            np.log(hazards[i] / hazards[times >= times[i]].sum()) for i in np.where(events)[0]
        )

    scores = metrics.compare_risk_groups(times, events, is_high)
    assert scores["hazard_ratio"] == pytest.approx(np.exp(minimize_scalar(loss).x), rel=1e-4)


def test_groups_that_cannot_be_compared_have_no_ratio():
    assert np.isnan(metrics.compare_risk_groups([1, 2], [1, 1], [1, 1])["logrank_p"])
    assert np.isnan(metrics.compare_risk_groups([1, 2, 3], [1, 1, 0], [1, 1, 0])["hazard_ratio"])
    apart = metrics.compare_risk_groups([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 0, 0])
    assert np.isnan(apart["hazard_ratio"])
    one_each = metrics.compare_risk_groups([1, 2], [1, 1], [1, 0], strata=[0, 1])
    assert np.isnan(one_each["logrank_p"])


def test_resamples_keep_the_size_of_each_group(rng):
    strata = rng.integers(0, 4, 100)
    draws = metrics.resample(strata, n_resamples=50, seed=3)
    for group in range(4):
        assert (draws[:, strata == group].sum(axis=1) == (strata == group).sum()).all()
    np.testing.assert_array_equal(draws, metrics.resample(strata, n_resamples=50, seed=3))
    assert (draws != metrics.resample(strata, n_resamples=50, seed=4)).any()
    counts = np.bincount(metrics.resample(np.zeros(30), n_resamples=2000).ravel(), minlength=5)
    assert counts[0] / counts.sum() == pytest.approx((1 - 1 / 30) ** 30, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.binary_scores([0, 1], [0.5]), r"is_positive \(2,\), probabilities \(1,\)"),
        (lambda: metrics.binary_scores([], []), "one value per patient is needed"),
        (lambda: metrics.binary_scores([0, 2], [0.5, 0.5]), "is_positive must be 0 or 1, not 2"),
        (lambda: metrics.binary_scores([0, 1], [0.5, 1.5]), "must be from 0 to 1, not 1.5"),
        (lambda: metrics.binary_scores([0, 1], [0.5, np.nan]), "NaN or infinite"),
        (lambda: metrics.multiclass_scores([0, 3], np.eye(2)), "codes must be from 0 to 1, not 3"),
        (lambda: metrics.multiclass_scores([0, 1], np.eye(2) / 2), "sum to 0.5, not to 1"),
        (lambda: metrics.multiclass_scores([0], np.eye(2)), "1 codes do not fit 2 rows"),
        (lambda: metrics.multiclass_scores([0, 1], [0.5, 0.5]), "a column per class"),
        (lambda: metrics.calibration([0, 1], [0.1, 0.2], n_bins=0), "n_bins must be at least 1"),
        (lambda: metrics.kaplan_meier([1, -2], [0, 1]), "must not be negative"),
        (lambda: metrics.kaplan_meier([1, 2], [0, 1], level=95), "such as 0.95, not 95"),
        (lambda: metrics.compare_risk_groups([1, 2], [1, 1], [0, 1], strata=[0]), "1 values for 2"),
        (lambda: metrics.uno_concordance([1, 2], [1, 7], [0, 1]), "events must be 0 or 1, not 7"),
        (lambda: metrics.resample([]), "no patient to resample"),
        (lambda: metrics.resample([1], n_resamples=0), "n_resamples must be at least 1"),
    ],
)
def test_wrong_arrays_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
