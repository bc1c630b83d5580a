"""Scores, temperature and threshold of validation patients."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from tests.cohorts import make_cohort

from stp.data.bag_file import BagFile
from stp.data.bags import Bags
from stp.metrics import concordance
from stp.models import SlideFeatures, SlideModel, SlideModelConfig, SlideTarget
from stp.models.device import build_with_seed
from stp.tables.cohort import bag_sources
from stp.train.labels import Labels
from stp.train.slide_split import draw_split
from stp.train.slide_task import SlidePrediction, label_tensors
from stp.train.slide_validation import (
    calibrate,
    choose_threshold,
    fit_temperature,
    require_scores,
    score_epoch,
)


def draw(n, temperature, n_classes=3, seed=0):
    """Draw logits, and classes whose probabilities are those of the logits after a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 4
    probabilities = softmax(logits / temperature, axis=1)
    codes = (probabilities.cumsum(1) < rng.random((n, 1))).sum(1)
    return logits, codes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_the_classes_is_recovered(temperature):
    logits, codes = draw(4000, temperature)
    assert fit_temperature(logits, codes) == pytest.approx(temperature, rel=0.12)


def test_few_patients_whose_classes_are_separated_leave_probabilities_between_0_and_1():
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    temperature = fit_temperature(logits, np.array([0, 0, 1, 1]))
    probability = softmax(logits / temperature, axis=1)[0, 0]
    assert 0.6 < probability < 0.95


def test_the_threshold_has_the_highest_sensitivity_plus_specificity():
    rng = np.random.default_rng(0)
    is_positive = rng.random(200) < 0.3
    scores = np.clip(rng.normal(0.2 + 0.3 * is_positive, 0.15), 0, 1)

    def youden(cut):
        return (scores[is_positive] >= cut).mean() + (scores[~is_positive] < cut).mean() - 1

    cut = choose_threshold(is_positive, scores)
    assert youden(cut) == pytest.approx(max(youden(value) for value in scores))
    assert cut not in scores


def test_the_threshold_of_separated_scores_lies_in_the_middle():
    is_positive = np.array([True, True, False, False])
    assert choose_threshold(is_positive, np.array([0.9, 0.7, 0.3, 0.1])) == pytest.approx(0.5)


def test_only_positive_classes_get_a_threshold():
    logits, codes = draw(100, 2.0, n_classes=2)
    labels = Labels(codes, np.zeros(100, bool), np.ones(100, bool))
    targets = (
        SlideTarget("classes", "x", ("a", "b")),
        SlideTarget("classes", "y", ("a", "b"), "b"),
        SlideTarget("value", "z"),
    )
    values = torch.as_tensor(logits)
    plain, positive, value = calibrate(targets, [labels] * 3, [values, values, values[:, :1]])
    assert plain.threshold == 0.5 != positive.threshold
    assert plain.temperature == positive.temperature > 1.2
    assert value == targets[2]


def test_an_epoch_is_scored_by_outside_functions(tmp_path):
    cohort = make_cohort(tmp_path / "cohort", n_patients=16)
    file = BagFile.write(bag_sources(cohort), tmp_path)
    rng = np.random.default_rng(0)
    targets = (
        SlideTarget("classes", "grade", ("a", "b", "c")),
        SlideTarget("survival", "days", event="dead", edges=(2.0, 4.0)),
    )
    labels = [
        Labels(rng.integers(0, 3, 16), np.zeros(16, bool), rng.random(16) < 0.8),
        Labels(rng.integers(1, 9, 16) * 1.0, rng.random(16) < 0.7, np.ones(16, bool)),
    ]
    config = SlideModelConfig(SlideFeatures(8), targets, hidden=16, attention=8)
    model = build_with_seed(0, lambda: SlideModel(config)).eval()
    bags = Bags(file, label_tensors(targets, labels))
    patients = np.array([1, 3, 4, 5, 7, 8, 9, 11, 12, 15])
    scores = score_epoch(SlidePrediction(model), bags, labels, patients, "fp32")
    outputs = []
    for patient in patients:
        tiles = torch.from_numpy(np.array(file.bag(patient))).float()
        with torch.inference_mode():
            logits = model(tiles, torch.tensor([0, len(tiles)]))
            outputs.append(model.to_predictions(logits)[0].numpy())
    outputs = np.array(outputs)
    is_labeled = labels[0].has_label[patients]
    auroc = roc_auc_score(
        labels[0].values[patients][is_labeled], outputs[is_labeled, :3], multi_class="ovr"
    )
    index = concordance(labels[1].values[patients], labels[1].events[patients], outputs[:, 3])
    assert scores["auroc_grade"] == pytest.approx(auroc)
    assert scores["c_index_days"] == pytest.approx(index)
    assert scores["score"] == pytest.approx((auroc + index) / 2, abs=2e-5)


def test_targets_that_cannot_be_scored_are_warned_of_or_refused():
    one_class = Labels(np.zeros(5, np.int64), np.zeros(5, bool), np.ones(5, bool))
    values = Labels(np.ones(5), np.zeros(5, bool), np.ones(5, bool))
    targets = (SlideTarget("classes", "grade", ("a", "b")), SlideTarget("value", "purity"))
    patients = np.arange(5)
    with pytest.warns(UserWarning, match="cannot score grade, so the other targets"):
        require_scores(targets, [one_class, values], patients)
    with pytest.raises(ValueError, match="cannot score grade: they need two classes"):
        require_scores(targets[:1], [one_class], patients)


def test_a_split_has_each_class_on_both_sides_in_its_share():
    codes = np.array([0] * 40 + [1] * 10 + [2] * 2 + [-1])
    labels = Labels(codes, np.zeros(53, bool), codes >= 0)
    none = np.array([], int)
    split = draw_split(labels, np.arange(52), 0.2, 3, none)
    assert np.bincount(codes[split.validation]).tolist() == [8, 2, 1]
    assert sorted([*split.training, *split.validation]) == list(range(52))
    again = draw_split(labels, np.arange(52), 0.2, 3, none)
    other = draw_split(labels, np.arange(52), 0.2, 4, none)
    assert (again.validation == split.validation).all()
    assert (other.validation != split.validation).any()


def test_a_split_of_survival_has_events_and_long_times_on_both_sides():
    rng = np.random.default_rng(0)
    labels = Labels(rng.exponential(100, 80), rng.random(80) < 0.5, np.ones(80, bool))
    split = draw_split(labels, np.arange(80), 0.25, 0, np.array([], int))
    is_long = labels.values > np.median(labels.values)
    for flag in (labels.events, is_long):
        shares = flag[split.validation].mean(), flag[split.training].mean()
        assert shares[0] == pytest.approx(shares[1], abs=0.15)
    assert 16 <= len(split.validation) <= 24
