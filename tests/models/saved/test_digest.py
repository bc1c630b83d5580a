import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoder, Stamp, StampConfig
from stp.models.saved.digest import digest, non_default_values


def test_digest_is_that_of_the_loaded_model(stamp, tmp_path):
    for kind, model in (
        (Stamp, stamp),
        (GeneEncoder, stamp.gene_encoder),
        (ImageEncoder, stamp.image_encoder),
    ):
        model.save_pretrained(tmp_path / kind.__name__)
        assert kind.from_pretrained(tmp_path / kind.__name__).digest == model.digest
    assert len({stamp.digest, stamp.gene_encoder.digest, stamp.image_encoder.digest}) == 3


def test_digest_stays_what_it_was():
    """Digests in results on disk must stay valid: the bytes it covers are written out here."""
    weights = {"b": torch.tensor([[1.0, 2.5]]), "a": torch.tensor(3.0)}
    result = digest("Stamp", StampConfig(GeneEncoderConfig(depth=3)), "0" * 64, weights)
    about = (
        f'{{"class": "Stamp", "config": {{"gene": {{"depth": 3}}}}, "vocabulary": "{"0" * 64}"}}'
    )
    a = hashlib.sha256(b"[]" + np.float32(3.0).tobytes()).hexdigest()
    b = hashlib.sha256(b"[1, 2]" + np.array([1.0, 2.5], "<f4").tobytes()).hexdigest()
    assert result == hashlib.sha256(f"{about}\na {a}\nb {b}".encode()).hexdigest()


@torch.no_grad()
def test_one_weight_changes_the_digest(stamp):
    before = stamp.digest
    stamp.logit_scale.data.fill_(1.0)
    assert stamp.digest != before


def test_all_that_changes_embeddings_changes_the_digest(stamp):
    weights = stamp.state_dict()
    first = digest("Stamp", stamp.config, "0", weights)
    bgr = dataclasses.replace(
        stamp.config, image=dataclasses.replace(stamp.config.image, channel_order="bgr")
    )
    others = [
        digest("Other", stamp.config, "0", weights),
        digest("Stamp", bgr, "0", weights),
        digest("Stamp", stamp.config, "1", weights),
        digest("Stamp", stamp.config, None, weights),
        digest("Stamp", stamp.config, "0", {**weights, "more": torch.zeros(1)}),
        digest(
            "Stamp",
            stamp.config,
            "0",
            {name: x for name, x in weights.items() if name != "logit_scale"},
        ),
        digest("Stamp", stamp.config, "0", {name: x[None] for name, x in weights.items()}),
    ]
    assert len({first, *others}) == len(others) + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_digest_depends_on_values_not_on_their_type(stamp, dtype):
    half = {name: tensor.to(dtype) for name, tensor in stamp.state_dict().items()}
    full = {name: tensor.float() for name, tensor in half.items()}
    assert digest("Stamp", stamp.config, "0", half) == digest("Stamp", stamp.config, "0", full)


def test_a_new_field_at_its_default_does_not_change_the_digest():
    assert non_default_values(StampConfig()) == {}
    config = StampConfig(GeneEncoderConfig(depth=3), projection_width=7)
    assert non_default_values(config) == {"gene": {"depth": 3}, "projection_width": 7}
