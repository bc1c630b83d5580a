"""Weights that timm publishes (`pretrained=True`), from a hub on this machine."""

import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from stp.models import ImageEncoder, ImageEncoderConfig

NAME = "vit_tiny_patch16_224"
HUB_ID = timm.get_pretrained_cfg(NAME).hf_hub_id
SMALL = ImageEncoderConfig(
    NAME, {"depth": 1}, um_per_px=2.0, has_prompt=False, pretrained=True
)  # of the weights only those of the first layer


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, tmp_path):
    weights = timm.create_model(NAME, depth=1).state_dict()
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    hub.commit_folder(HUB_ID, folder)
    encoder = ImageEncoder(SMALL)
    for name, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not encoder.config.pretrained  # a saved config downloads nothing
    hub.status = 503
    with pytest.warns(UserWarning, match=f"{HUB_ID} is read from the cache, commit"):
        ImageEncoder(SMALL)


def test_a_hub_out_of_reach_is_one_line_within_five_seconds(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        ImageEncoder(SMALL)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert f"cannot get model.safetensors of {HUB_ID}" in message
    assert "or leave pretrained=False" in message
