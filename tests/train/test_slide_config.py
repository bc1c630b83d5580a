"""Settings of slide models."""

import pytest

from stp.models import SlideFeatures, SlideModel, SlideModelConfig, SlideTarget
from stp.train import SlideConfig, Survival


def test_defaults_are_those_of_the_paper():
    config = SlideConfig()
    assert (config.learning_rate, config.epochs, config.patience) == (5e-4, 50, 5)
    assert (config.batch_size, config.max_tiles, config.weight_decay) == (1, None, 0.0)
    assert config.min_learning_rate is None and config.clip_norm == float("inf")


def test_model_and_training_have_the_same_defaults():
    features, target = SlideFeatures(8), SlideTarget("value", "purity")
    model, training = SlideModelConfig(features, (target,)), SlideConfig()
    for name in ("hidden", "attention", "gated", "pooling", "dropout", "standardize"):
        assert getattr(model, name) == getattr(training, name)


def test_parameters_at_the_default_size():
    """The first layer, both halves of the gated attention, and the head."""
    target = SlideTarget("classes", "EGFR", ("mutated", "wild type"))
    model = SlideModel(SlideModelConfig(SlideFeatures(1024), (target,)))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert n_parameters == (1024 + 1) * 512 + (512 + 1) * 512 + 256 + (512 + 1) * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tiles": 0}, "max_tiles must be positive"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"patience": 0}, "patience must be positive"),
        ({"hidden": -1}, "hidden must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SlideConfig(**settings)


def test_one_interval_is_refused():
    with pytest.raises(ValueError, match="n_intervals must be at least 2, not 1"):
        Survival("days", "event", n_intervals=1)
