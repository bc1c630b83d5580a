"""Losses of slide models against closed forms."""

import numpy as np
import pytest
import torch

from stp.models import SlideFeatures, SlideModel, SlideModelConfig, SlideTarget
from stp.models.device import build_with_seed
from stp.train.engine.config import LoopConfig
from stp.train.engine.processes import Processes
from stp.train.engine.steps import make_optimizer, training_step
from stp.train.labels import Labels
from stp.train.slide_task import (
    SlidePrediction,
    balance_classes,
    find_intervals,
    hazard_loss,
    label_tensors,
)

TARGETS = (
    SlideTarget("classes", "grade", ("a", "b", "c")),
    SlideTarget("value", "purity"),
    SlideTarget("survival", "days", event="dead", edges=(10.0, 20.0, 30.0)),
)


def labels():
    """Return labels of three patients; the last has no grade, and nobody but the first a value."""
    return [
        Labels(np.array([2, 0, -1]), np.zeros(3, bool), np.array([True, True, False])),
        Labels(np.array([0.7, 0.0, 0.0]), np.zeros(3, bool), np.array([True, False, False])),
        Labels(np.array([5.0, 20.0, 99.0]), np.array([True, True, False]), np.ones(3, bool)),
    ]


@pytest.fixture
def task():
    config = SlideModelConfig(SlideFeatures(6), TARGETS, hidden=8, attention=4, dropout=0.0)
    return SlidePrediction(build_with_seed(0, lambda: SlideModel(config)))


@pytest.fixture
def batch():
    features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    tensors = label_tensors(TARGETS, labels())
    return {"features": features, "offsets": torch.tensor([0, 3, 4, 9]), **tensors}


def test_hazard_loss_is_the_likelihood_of_zadeh_and_schmid():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.1]]).double().repeat(8, 1)
    intervals = torch.tensor([0, 1, 2, 3] * 2)
    events = torch.tensor([True] * 4 + [False] * 4)
    losses = hazard_loss(logits, intervals, events)
    hazards = 1 / (1 + np.exp(-logits[0].numpy()))
    for loss, interval, event in zip(losses, intervals, events, strict=True):
        survived = np.prod(1 - hazards[:interval])
        last = hazards[interval] if event else 1 - hazards[interval]
        assert loss.item() == pytest.approx(-np.log(survived * last))


def test_likelihoods_of_all_outcomes_add_up_to_one():
    """An event in any interval, or none in all of them."""
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(1)).double()
    events = hazard_loss(logits.repeat(4, 1), torch.arange(4), torch.ones(4, dtype=torch.bool))
    censored = hazard_loss(logits, torch.tensor([3]), torch.zeros(1, dtype=torch.bool))
    assert (torch.exp(-events).sum() + torch.exp(-censored)).item() == pytest.approx(1)


def test_an_edge_belongs_to_the_later_interval():
    times = np.array([0.1, 9.9, 10.0, 25.0, 30.0, 1e6])
    assert find_intervals(times, (10.0, 20.0, 30.0)).tolist() == [0, 0, 1, 2, 3, 3]


def test_losses_are_means_over_the_patients_with_a_label(task, batch):
    losses = task(batch)
    grades, value, hazards = task.model.split_targets(
        task.model(batch["features"], batch["offsets"])
    )
    log_probabilities = grades.log_softmax(1)
    expected = -(log_probabilities[0, 2] + log_probabilities[1, 0]) / 2
    assert losses["loss_grade"].item() == pytest.approx(expected.item())
    assert losses["loss_purity"].item() == pytest.approx((value[0, 0].item() - 0.7) ** 2)
    each = hazard_loss(hazards, torch.tensor([0, 2, 3]), torch.tensor([True, True, False]))
    assert losses["loss_days"].item() == pytest.approx(each.mean().item())
    names = ("loss_grade", "loss_purity", "loss_days")
    assert losses["loss"].item() == pytest.approx(sum(losses[name].item() for name in names))
    assert task.counts(batch) == {"loss_grade": 2, "loss_purity": 1, "loss_days": 3}


def test_a_missing_label_drops_its_term(task, batch):
    """A patient without a grade trains the other targets, and the branch of the grade stays."""
    features = batch["features"][4:]
    alone = {name: values[2:] for name, values in batch.items() if name not in ("features",)}
    alone |= {"features": features, "offsets": torch.tensor([0, 5])}
    before = {name: weight.clone() for name, weight in task.model.named_parameters()}
    config = LoopConfig(weight_decay=0.0, warmup_steps=0, learning_rate=0.01)
    processes = Processes(0, 1, torch.device("cpu"))
    losses = training_step(task, make_optimizer(task, config), [alone], config, processes)
    assert set(losses) == {"loss_days", "loss"}  # the others have no patient
    changed = {
        name
        for name, weight in task.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert not {name for name in changed if name.startswith(("heads.0", "branches.0", "heads.1"))}
    assert {"heads.2.weight", "branches.2.score.weight", "tiles.0.weight"} <= changed


def test_balanced_classes_weigh_the_same(batch):
    codes = np.array([0] * 6 + [1] * 3 + [2] + [-1])
    grade = Labels(codes, np.zeros(11, bool), codes >= 0)
    weights = balance_classes(grade, np.ones(11, bool), 3)
    totals = weights.numpy() * [6, 3, 1]
    np.testing.assert_allclose(totals, 10 / 3, rtol=1e-6)
    config = SlideModelConfig(SlideFeatures(6), TARGETS[:1], hidden=8, attention=4, dropout=0.0)
    model = SlideModel(config)
    labeled = {name: batch[name][:2] for name in batch if name.endswith("_0")}
    logits = torch.randn(2, 3)
    plain = SlidePrediction(model).losses(logits, labeled)["loss"]
    task = SlidePrediction(model, {"grade": torch.tensor([3.0, 1.0, 3.0])})
    assert task.losses(logits, labeled)["loss"].item() == pytest.approx(3 * plain.item())
