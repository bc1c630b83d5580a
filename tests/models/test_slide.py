"""The slide model: ragged bags, exact contributions, and what a saved model says."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from stp.models import SlideFeatures, SlideModel, SlideModelConfig, SlideTarget
from stp.models.device import build_with_seed
from stp.models.slide_patients import hash_patients, new_salt

TARGETS = (
    SlideTarget("classes", "EGFR", ("mutated", "wild type"), "mutated", temperature=2.0),
    SlideTarget("value", "purity", value_mean=1e6, value_sd=200_000.0),
    SlideTarget("survival", "os_days", event="os_event", edges=(100.0, 700.5, 90_000.0)),
)
WIDTH = 12


def model_of(**settings):
    sizes = {"hidden": 16, "attention": 8} | settings
    config = SlideModelConfig(SlideFeatures(WIDTH, model_digest="a" * 64), TARGETS, **sizes)
    return build_with_seed(0, lambda: SlideModel(config)).eval()


@pytest.fixture
def bags():
    generator = torch.Generator().manual_seed(0)
    sizes = (1, 7, 300, 2)
    features = torch.randn(sum(sizes), WIDTH, generator=generator)
    return features, torch.tensor([0, *np.cumsum(sizes)])


KINDS = [
    {},
    {"gated": False},
    {"pooling": "mean"},
    {"pooling": "transformer"},
    {"standardize": True},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_bag_alone_equals_the_bag_in_a_batch(bags, settings):
    features, offsets = bags
    model = model_of(**settings)
    with torch.inference_mode():
        together = model(features, offsets)
        for number, (start, end) in enumerate(zip(offsets, offsets[1:], strict=False)):
            alone = model(features[start:end], torch.tensor([0, end - start]))
            torch.testing.assert_close(alone[0], together[number], rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_the_order_of_tiles_does_not_matter(bags, settings):
    features, _ = bags
    model = model_of(**settings)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))
    offsets = torch.tensor([0, len(features)])
    with torch.inference_mode():
        in_order, shuffled = model(features, offsets), model(features[order], offsets)
    torch.testing.assert_close(shuffled, in_order, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [KINDS[0], KINDS[1], KINDS[2], KINDS[4]], ids=str)
def test_contributions_and_bias_are_the_logit_and_attention_sums_to_one(bags, settings):
    features, offsets = bags
    model = model_of(**settings)
    bias = torch.cat([head.bias for head in model.heads])
    with torch.inference_mode():
        logits, attention, contributions = model.explain(features, offsets)
        torch.testing.assert_close(logits, model(features, offsets), rtol=0, atol=1e-6)
    assert attention.shape == (310, 3) and contributions.shape == (310, 7)
    for number, (start, end) in enumerate(zip(offsets, offsets[1:], strict=False)):
        total = contributions[start:end].sum(0) + bias
        torch.testing.assert_close(total, logits[number], rtol=0, atol=1e-5)
        torch.testing.assert_close(attention[start:end].sum(0), torch.ones(3))


def test_gated_attention_is_equation_9_of_ilse(bags):
    """a = softmax of w'(tanh(V h) * sigmoid(U h)), by a loop over tiles and targets."""
    features, _ = bags
    model = model_of()
    tiles = features[1:8].double()
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    hidden = (tiles @ weights["tiles.0.weight"].T + weights["tiles.0.bias"]).clamp(min=0)
    logits = []
    for number in range(3):
        branch = {n.split(".", 2)[2]: t for n, t in weights.items() if f"branches.{number}" in n}
        scores = []
        for tile in hidden:
            both = branch["project.weight"] @ tile + branch["project.bias"]
            gate = both[:8].tanh() * both[8:].sigmoid()
            scores.append((branch["score.weight"] @ gate).item())
        attention = np.exp(scores) / np.exp(scores).sum()
        pooled = sum(a * tile for a, tile in zip(attention, hidden, strict=True))
        logits += (
            weights[f"heads.{number}.weight"] @ pooled + weights[f"heads.{number}.bias"]
        ).tolist()
    with torch.inference_mode():
        result = model(features[1:8], torch.tensor([0, 7]))[0]
    np.testing.assert_allclose(result, logits, atol=1e-6)


def test_predictions_are_probabilities_values_and_risks():
    logits = torch.tensor([[2.0, 0.0, 0.5, -1.0, 0.0, 1.0, 2.0]])
    probability, _, value, risk = model_of().to_predictions(logits)[0].tolist()
    assert probability == pytest.approx(1 / (1 + np.exp(-1)))  # temperature 2
    assert value == pytest.approx(1e6 + 0.5 * 200_000)
    survival = np.cumprod(1 - 1 / (1 + np.exp([1.0, 0.0, -1.0, -2.0])))
    assert risk == pytest.approx(-survival.sum())
    assert model_of().config.columns == (
        "EGFR_mutated",
        "EGFR_wild type",
        "purity",
        "os_days_risk",
    )


def test_a_higher_hazard_is_a_higher_risk():
    model = model_of()
    low = torch.zeros(1, 7)
    for interval in range(3, 7):
        high = low.clone()
        high[0, interval] = 3.0
        assert model.to_predictions(high)[0, 3] > model.to_predictions(low)[0, 3]


def test_transformer_has_no_contributions(bags):
    with pytest.raises(ValueError, match="has no contributions of tiles; train one with"):
        model_of(pooling="transformer").explain(*bags)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_saved_and_loaded_it_is_the_same(bags, tmp_path, settings):
    salt = new_salt()
    patients = tuple(hash_patients(["P1", "P2"], salt))
    model = model_of(salt=salt, patient_hashes=patients, bag_sizes=(3, 100_000), **settings)
    model.slide_mean += 3.0
    model.save_pretrained(tmp_path)
    loaded = SlideModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.digest == model.digest
    with torch.inference_mode():
        torch.testing.assert_close(loaded(*bags), model(*bags), rtol=0, atol=0)
    assert loaded.slide_mean[0] == 3.0
    assert "EGFR, purity, os_days" in repr(loaded) and "EGFR" in loaded._repr_html_()
    assert "SlideModel" in (tmp_path / "README.md").read_text()


def test_a_model_knows_whom_it_has_seen_and_can_forget(tmp_path):
    salt = new_salt()
    model = model_of(salt=salt, patient_hashes=tuple(hash_patients(["TCGA-1", "TCGA-2"], salt)))
    hashes = model.hash_patients(["TCGA-2", "TCGA-3", "TCGA-1"])
    assert [value in model.config.patient_hashes for value in hashes] == [True, False, True]
    model.save_pretrained(tmp_path / "with")
    model.save_pretrained(tmp_path / "without", patients=False)
    assert len(model.config.patient_hashes) == 2  # the model itself keeps them
    without = SlideModel.from_pretrained(tmp_path / "without")
    assert without.digest == SlideModel.from_pretrained(tmp_path / "with").digest == model.digest
    config = json.loads((tmp_path / "without" / "config.json").read_text())["config"]
    assert config["patient_hashes"] == [] and config["salt"] == ""
    assert model.config.patient_hashes[0] not in (tmp_path / "without" / "config.json").read_text()


def test_thresholds_and_other_facts_of_training_change_the_digest():
    model = model_of()
    first = model.digest
    target = dataclasses.replace(TARGETS[0], threshold=0.3)
    model.config = dataclasses.replace(model.config, targets=(target, *TARGETS[1:]))
    assert model.digest != first


def test_another_salt_makes_other_hashes():
    one, two = new_salt(), new_salt()
    assert hash_patients(["P1"], one) == hash_patients(["P1"], one) != hash_patients(["P1"], two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of"),
        ({"pooling": "transformer", "hidden": 12}, "hidden must be a multiple of 8"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        model_of(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("class", "EGFR"), "kind must be one of"),
        (("classes", "EGFR", ("mutated",)), "needs two"),
        (("survival", "days"), "needs event"),
        (("value", "purity", (), None, None, (), float("nan")), "must be finite"),
    ],
)
def test_wrong_targets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SlideTarget(*arguments)


def test_a_target_may_come_only_once():
    with pytest.raises(ValueError, match="each only once"):
        SlideModelConfig(SlideFeatures(4), (TARGETS[1], TARGETS[1]))


def test_predictions_of_one_name_are_refused():
    first = SlideTarget("classes", "a", ("b_c", "d"))
    second = SlideTarget("classes", "a_b", ("c", "d"))
    with pytest.raises(ValueError, match="rename targets or classes"):
        SlideModelConfig(SlideFeatures(4), (first, second))
