"""Scores of resamples equal the scores of patients that are repeated."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score, roc_curve

from stp import metrics
from stp.metrics import _curves, _resample, _weighted
from stp.metrics._calibration import recalibration

N = 40


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def weights(rng):
    """Six resamples, and first the patients as they are."""
    return np.concatenate([np.ones((1, N), int), metrics.resample(np.zeros(N), n_resamples=6)])


@pytest.fixture
def binary(rng):
    is_positive = np.arange(N) % 3 == 0
    return is_positive, np.round(expit(rng.normal(size=N) + is_positive), 1).clip(0.1, 0.9)


def assert_equal_to_repeated(weighted, score, arrays, weights):
    """Compare each row of weights with the score of repeated patients."""
    for row, counts in enumerate(weights):
        repeated = score(*[np.repeat(array, counts, axis=0) for array in arrays])
        for name, values in weighted.items():
            assert values[row] == pytest.approx(repeated[name], rel=1e-5, nan_ok=True), name


def test_binary_scores(binary, weights):
    is_positive, probabilities = binary
    weighted = _weighted.weighted_binary_scores(is_positive, probabilities, weights)
    assert_equal_to_repeated(weighted, metrics.binary_scores, binary, weights)
    decisions = _weighted.weighted_decision_scores(is_positive, probabilities >= 0.5, weights)
    assert_equal_to_repeated(decisions, metrics.binary_scores, binary, weights)


def test_calibration(binary, weights):
    slope, intercept = recalibration(*binary, weights)
    weighted = {"slope": slope, "intercept": intercept}
    assert_equal_to_repeated(weighted, metrics.calibration, binary, weights)


def test_class_scores(rng, weights):
    codes = np.arange(N) % 3
    probabilities = rng.dirichlet([1, 1, 1], N)
    predicted = probabilities.argmax(axis=1)
    weighted = _weighted.weighted_class_scores(
        codes, probabilities, predicted, weights, classes=np.arange(3)
    )
    assert_equal_to_repeated(weighted, metrics.multiclass_scores, (codes, probabilities), weights)


def test_value_scores(rng, weights):
    values = rng.normal(1000, 1, N)
    predicted = values + rng.normal(size=N)
    weighted = _weighted.weighted_value_scores(values, predicted, weights)
    assert_equal_to_repeated(weighted, metrics.value_scores, (values, predicted), weights)


def test_risk_scores(rng, weights):
    times = np.ceil(rng.exponential(10, N))
    is_event = rng.random(N) < 0.6
    risks = np.round(-times / 10 + rng.normal(size=N), 1)

    def score(*arrays):
        return {
            "harrell_c": metrics.concordance(*arrays),
            "uno_c": metrics.uno_concordance(*arrays),
        }

    weighted = _weighted.weighted_risk_scores(times, is_event, risks, weights)
    assert_equal_to_repeated(weighted, score, (times, is_event, risks), weights)


def test_scores_of_a_row_without_a_class_are_nan(binary):
    is_positive, probabilities = binary
    weighted = _weighted.weighted_binary_scores(is_positive, probabilities, is_positive[None] * 1)
    undefined = {name for name, values in weighted.items() if np.isnan(values[0])}
    assert undefined == {"auroc", "auprc"}
    assert np.isnan(recalibration(*binary, is_positive[None] * 1)).all()


def test_bootstrap_is_that_of_a_loop_over_scikit_learn(binary):
    is_positive, probabilities = binary
    draws = metrics.resample(is_positive, n_resamples=200, seed=5)
    fast = _weighted.weighted_ranking_scores(is_positive, probabilities, draws)["auroc"]
    slow = [roc_auc_score(is_positive, probabilities, sample_weight=counts) for counts in draws]
    np.testing.assert_allclose(fast, slow, rtol=1e-10)
    expected = tuple(np.quantile(slow, [0.025, 0.975]))
    assert _resample.percentile_interval(fast, 0.95) == pytest.approx(expected)


def test_curves_have_the_area_of_their_scores(binary, weights):
    is_positive, probabilities = binary
    fine = np.linspace(0, 1, 20_001)
    areas = np.trapezoid(_curves.roc_points(is_positive, probabilities, weights, fine), fine)
    scores = _weighted.weighted_ranking_scores(is_positive, probabilities, weights)
    np.testing.assert_allclose(areas, scores["auroc"], atol=1e-3)
    precision = _curves.precision_points(is_positive, probabilities, weights, fine[1:])
    np.testing.assert_allclose(precision.mean(axis=1), scores["auprc"], atol=1e-3)


def test_corners_of_the_curve_are_those_of_scikit_learn(binary):
    is_positive, probabilities = binary
    x, y, _ = roc_curve(is_positive, probabilities, drop_intermediate=False)
    highest = [y[x == share].max() for share in x]
    points = _curves.roc_points(is_positive, probabilities, np.ones((1, N)), x)
    np.testing.assert_allclose(points[0], highest)


def test_p_values_count_resamples_on_the_other_side():
    assert _resample.two_sided_p(np.full(99, 0.3)) == pytest.approx(2 / 100)
    assert _resample.two_sided_p(np.array([-1.0, 1, 2, 3])) == pytest.approx(4 / 5)
    assert _resample.two_sided_p(np.zeros(4)) == 1
