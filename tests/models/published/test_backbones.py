import dataclasses

import pytest
import torch
from safetensors.torch import save_file

import stp.models.published.backbones as module
from stp.models import ImageEncoder, backbones, load_backbone

# Parameters in millions, as their authors state them.
PARAMETERS = {
    "UNI": 303,
    "UNI2-h": 681,
    "Virchow2": 631,
    "H-optimus-0": 1134,
    "H-optimus-1": 1134,
    "GigaPath": 1134,
    "Phikon-v2": 303,
    "Midnight-12k": 1136,
}
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 1e-5}


@pytest.fixture
def small(monkeypatch):
    """Make every known backbone small enough for a test."""
    for name, backbone in module.BACKBONES.items():
        small_backbone = dataclasses.replace(
            backbone,
            architecture="vit_tiny_patch16_224",
            arguments={**backbone.arguments, **SMALL},
            image_size=64,
        )
        monkeypatch.setitem(module.BACKBONES, name, small_backbone)


def config_of(name):
    backbone = module.BACKBONES[name]
    return module.ImageEncoderConfig(
        backbone.architecture, backbone.arguments, image_size=backbone.image_size
    )


def weights_of(name):
    """Draw weights of a small backbone."""
    config = config_of(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ImageEncoder(config)
    return {key: tensor.clone() for key, tensor in encoder.backbone.state_dict().items()}


def test_the_list_has_every_backbone_and_its_facts():
    table = backbones()
    assert list(table.index) == list(PARAMETERS)
    assert table.loc["H-optimus-0", "mean"] == (0.707223, 0.578729, 0.703617)
    assert table.loc["Midnight-12k", ["hub_id", "license", "gated"]].tolist() == [
        "kaiko-ai/midnight",
        "MIT",
        False,
    ]
    facts = {
        "hub_id",
        "width",
        "image_size",
        "um_per_px",
        "scale",
        "mean",
        "std",
        "license",
        "gated",
        "note",
    }
    assert set(table.columns) == facts
    assert set(table["scale"]) == {"stated", "20x", "assumed"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_the_stated_width_and_size(name):
    with torch.device("meta"):
        encoder = ImageEncoder(config_of(name))
    assert encoder.width == module.BACKBONES[name].width
    size = sum(parameter.numel() for parameter in encoder.backbone.parameters()) / 1e6
    assert size == pytest.approx(PARAMETERS[name], abs=1.5)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("name", ["UNI", "UNI2-h", "Virchow2", "GigaPath"])
def test_weights_are_read_from_a_local_file(name, ending, small, tmp_path):
    weights = weights_of(name)
    path = tmp_path / f"w.{ending}"
    save = save_file if ending == "safetensors" else torch.save
    save(weights, path)
    encoder = load_backbone(name, path=path)
    for key, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[key])
    assert (encoder.config.mean, encoder.config.um_per_px) == (module.BACKBONES[name].mean, 0.5)
    encoder.save_pretrained(tmp_path / "saved")
    again = ImageEncoder.from_pretrained(tmp_path / "saved")
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(images), encoder(images))


@pytest.mark.parametrize("name", ["Phikon-v2", "Midnight-12k"])
def test_weights_with_the_names_of_transformers_are_read(name, small, tmp_path):
    weights = weights_of(name)
    theirs = {}
    back = {
        new: old
        for old, new in module.TIMM_NAMES.items()
        if "weights" not in old or name == "Midnight-12k"
    }
    for key, tensor in weights.items():
        if "attn.qkv" in key:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed = key.replace("attn.qkv", f"attention.attention.{part}").replace(
                    "blocks", "encoder.layer"
                )
                theirs[renamed] = third.clone()
            continue
        for new, old in back.items():
            starts = (
                key == new
                or key.startswith(f"{new}.")
                or f".{new}." in key
                or key.endswith(f".{new}")
            )
            if starts and not (new == "norm" and key.startswith("blocks")):
                key = key.replace(new, old)
        theirs[key] = tensor
    theirs["embeddings.mask_token"] = torch.zeros(1, 32)
    assert "layernorm.weight" in theirs and "encoder.layer.1.attention.output.dense.bias" in theirs
    save_file(theirs, tmp_path / "w.safetensors")
    encoder = load_backbone(name, path=tmp_path / "w.safetensors")
    for key, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[key]), key


def test_unknown_names_and_weights_that_do_not_fit_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match="no backbone 'resnet'; choose from .*'UNI', 'UNI2-h'"):
        load_backbone("resnet")
    with pytest.raises(FileNotFoundError, match="no weights at nothing"):
        load_backbone("UNI", path="nothing")
    save_file(weights_of("UNI2-h"), tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match="does not fit UNI: unknown: reg_token; of another shape: pos_embed is"
    ):
        load_backbone("UNI", path=tmp_path / "w.safetensors")


def test_a_gated_download_is_explained(hub):
    hub.commit("MahmoodLab/UNI", {})
    hub.repositories["MahmoodLab/UNI"].is_gated = True
    with pytest.raises(
        PermissionError,
        match=r"accept the terms at https://huggingface.co/MahmoodLab/UNI, log in with `hf auth",
    ):
        load_backbone("UNI")


def test_without_the_hub_the_remedy_is_a_file(hub):
    hub.status = 503
    with pytest.raises(
        FileNotFoundError,
        match="from the hub or from its cache on this machine; download .*path=.*status 503",
    ):
        load_backbone("UNI")


def test_a_download_tries_both_kinds_of_weights(small, hub, tmp_path):
    weights = weights_of("UNI")
    torch.save(weights, tmp_path / "w.bin")
    hub.commit("MahmoodLab/UNI", {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    encoder = load_backbone("UNI")
    for key, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[key])
    names = [request.rpartition("/")[2] for request in hub.requests]
    assert names[0] == "model.safetensors" and set(names[1:]) == {"pytorch_model.bin"}
