import dataclasses

import numpy as np
import pytest
import torch
from benchmarks.accuracy.small_variants import VARIANTS

from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AdaptConfig, AlignConfig, Phase, PretrainConfig, RegressionConfig
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.processes import Processes


@pytest.mark.parametrize(
    ("n_spots", "batch_size", "accumulate", "multiple", "expected"),
    [
        (100_000, 256, 2, 1, (256, 2)),
        (5_120, 256, 2, 1, (256, 2)),  # ten steps exactly
        (5_119, 256, 2, 1, (256, 1)),
        (2_560, 256, 2, 1, (256, 1)),
        (2_559, 256, 2, 1, (255, 1)),
        (1_000, 256, 4, 1, (100, 1)),
        (25, 256, 2, 1, (2, 1)),
        (3, 256, 2, 1, (1, 1)),
        (100_000, 216, 1, 9, (216, 1)),
        (1_000, 216, 1, 9, (99, 1)),  # eleven groups
        (50, 216, 1, 9, (9, 1)),
        (100, 64, 1, 2, (10, 1)),
        (115, 64, 1, 2, (10, 1)),
        (100_000, 32, 1, 12, (24, 1)),  # two processes, six spots of a slide together
    ],
)
def test_plan_shrinks_to_ten_steps(n_spots, batch_size, accumulate, multiple, expected):
    plan = BatchPlan.for_spots(
        n_spots, epochs=3, batch_size=batch_size, accumulate=accumulate, multiple=multiple
    )
    assert (plan.batch_size, plan.accumulate) == expected
    assert plan.epochs == 3
    if n_spots >= 10 * multiple:
        assert n_spots // (plan.batch_size * plan.accumulate) >= 10


def test_plan_says_what_it_shrank():
    sizes = {"epochs": 1, "batch_size": 256, "accumulate": 4}
    assert BatchPlan.for_spots(1_000, **sizes).note == (
        "there are only 1,000 spots to train on: a batch has 100 spots instead of 256 and a step "
        "has 1 batch instead of 4, so that an epoch has 10 steps. Add slides, or set batch_size "
        "and accumulate to these values"
    )
    only_batches = BatchPlan.for_spots(364, epochs=1, batch_size=256, accumulate=1).note
    assert "a batch has 36 spots instead of 256, so that" in only_batches  # nothing on steps
    assert BatchPlan.for_spots(100_000, **sizes).note is None
    assert BatchPlan.for_spots(100_000, **sizes, multiple=9).note is None


def test_ten_steps_are_of_spots_that_fill_groups():
    rows = [np.arange(26)] * 20  # two groups of nine each, and eight spots that sit out
    with pytest.warns(UserWarning, match="only 360 spots"):
        alone = Processes(0, 1, torch.device("cpu"))
        plan = BatchPlan.for_corpus(rows, Phase(batch_size=216), alone, multiple=9)
    assert plan.batch_size == 36  # 40 groups in ten batches; 520 spots would make eight of 45


def test_defaults_are_those_of_the_paper():
    masked, neighborhood = PretrainConfig().phases
    assert (masked.objective, masked.epochs, masked.batch_size) == ("masked", 1, 256)
    assert (neighborhood.objective, neighborhood.epochs, neighborhood.batch_size) == (
        "neighborhood",
        1,
        24 * 9,
    )
    schedule = ("learning_rate", "min_learning_rate", "warmup_steps", "weight_decay")
    assert [getattr(PretrainConfig(), name) for name in schedule] == [1e-4, 1e-5, 5000, 0.1]
    assert [getattr(AlignConfig(), name) for name in schedule] == [1e-4, 1e-5, 500, 1e-3]
    assert (AlignConfig().epochs, AlignConfig().batch_size, AlignConfig().accumulate) == (
        30,
        256,
        2,
    )
    assert (PretrainConfig().min_genes, PretrainConfig().mask_fraction) == (100, 0.15)
    # Adapters and heads are trained at one rate, without clipping.
    downstream = (*schedule, "epochs", "patience", "clip_norm")
    assert [getattr(AdaptConfig(), name) for name in downstream] == [
        1e-3,
        None,
        0,
        1e-2,
        20,
        5,
        float("inf"),
    ]
    assert [getattr(RegressionConfig(), name) for name in downstream] == [
        1e-4,
        None,
        0,
        0,
        100,
        3,
        float("inf"),
    ]


@pytest.mark.parametrize("kind", [AdaptConfig, RegressionConfig])
def test_only_stages_that_read_stores_choose_spots_by_genes(kind):
    for stage in (PretrainConfig, AlignConfig):
        with pytest.raises(ValueError, match="min_genes must not be negative"):
            stage(min_genes=-1)
    with pytest.raises(TypeError, match="min_genes"):
        kind(min_genes=5)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            PretrainConfig,
            {"precision": "fp16"},
            "precision must be 'auto', 'bf16' or 'fp32', not 'fp16'",
        ),
        (AlignConfig, {"precision": "half"}, "precision must be"),
        (PretrainConfig, {"context": "mean"}, "context must be 'pooled' or 'positionwise'"),
        (PretrainConfig, {"targets": "some"}, "targets 'masked' or 'all'"),
        (PretrainConfig, {"phases": ()}, "phases must not be empty"),
        (PretrainConfig, {"mask_fraction": 0}, "mask_fraction must be above 0 and at most 1"),
        (PretrainConfig, {"mask_fraction": 15}, "mask_fraction must be above 0 and at most 1"),
        (Phase, {"objective": "both"}, "objective must be 'masked' or 'neighborhood', not 'both'"),
        (Phase, {"epochs": 0}, "epochs must be positive, not 0"),
        (Phase, {"batch_size": 0}, "batch_size must be positive"),
        (AlignConfig, {"epochs": 0}, "epochs must be positive"),
        (AlignConfig, {"accumulate": -1}, "accumulate must be positive, not -1"),
        (AlignConfig, {"learning_rate": 0.0}, "learning_rate must be positive"),
        (AlignConfig, {"learning_rate": float("nan")}, "learning_rate must be positive"),
        (
            PretrainConfig,
            {"learning_rate": 1e-6},
            "min_learning_rate 1e-05 must be between 0 and learning_rate 1e-06",
        ),
        (AdaptConfig, {"min_learning_rate": -1e-6}, "min_learning_rate -1e-06 must be between 0"),
        (PretrainConfig, {"seed": -1}, "seed must not be negative, but it is -1"),
        (RegressionConfig, {"n_workers": -1}, "n_workers must not be negative"),
        (AlignConfig, {"weight_decay": -0.1}, "weight_decay must not be negative"),
        (
            AlignConfig,
            {"stain_jitter": float("nan")},
            "stain_jitter must not be negative, but it is nan",
        ),
        (GeneEncoderConfig, {"n_heads": 0}, "n_heads must be positive, not 0"),
        (GeneEncoderConfig, {"depth": -1}, "depth must be positive, not -1"),
        (ImageEncoderConfig, {"um_per_px": 0.0}, "um_per_px must be positive"),
        (AlignConfig, {"log_every": 0}, "log_every must be positive"),
        (AlignConfig, {"checkpoint_every": 0}, "checkpoint_every must be positive"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    "config", [PretrainConfig(), AlignConfig(), Phase()], ids=lambda config: type(config).__name__
)
def test_configs_are_frozen(config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3


def test_settings_for_few_slides_are_those_that_the_search_chose():
    assert PretrainConfig.small() == VARIANTS["pretraining, 160 epochs"].pretrain
    assert AlignConfig.small() == VARIANTS["no stain jitter"].align
    assert VARIANTS["chosen"].align == AlignConfig.small()


def test_epochs_for_few_slides_can_be_changed():
    fewer = PretrainConfig.small(epochs=16)
    assert [phase.epochs for phase in fewer.phases] == [16]
    assert dataclasses.replace(fewer, phases=PretrainConfig.small().phases) == (
        PretrainConfig.small()
    )
    assert AlignConfig.small(epochs=3) == dataclasses.replace(AlignConfig.small(), epochs=3)
    with pytest.raises(ValueError, match="epochs must be"):
        PretrainConfig.small(epochs=0)
