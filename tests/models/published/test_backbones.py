import dataclasses
import logging
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import stp.models.published.backbones as module
from stp.models import ImageEncoder, backbones, load_backbone

# Parameters in millions, as their authors and other packages state them. Position embeddings that
# are resized while loading count with the size that they have then.
PARAMETERS = {
    "UNI": 303.4,
    "UNI2-h": 681.4,
    "Virchow": 631.2,
    "Virchow2": 631.2,
    "H-optimus-0": 1134.8,
    "H-optimus-1": 1134.8,
    "H0-mini": 85.7,
    "GigaPath": 1134.9,
    "GigaPath-Flash": 21.7,
    "Phikon": 85.8,
    "Phikon-v2": 303.4,
    "Midnight-12k": 1134.8,
    "OpenMidnight": 1134.8,
    "Hibou-B": 85.7,
    "Hibou-L": 303.7,
    "Kaiko ViT-S/16": 21.7,
    "Kaiko ViT-S/8": 21.7,
    "Kaiko ViT-B/16": 85.8,
    "Kaiko ViT-B/8": 85.8,
    "Kaiko ViT-L/14": 303.2,
    "Lunit DINO ViT-S/16": 21.7,
    "Lunit DINO ViT-S/8": 21.7,
    "GPFM": 303.2,
    "mSTAR": 303.4,
    "CONCH": 86.3,
}
# Of attention pooling, which is a part of CONCH's image tower.
POOL = 1.3
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 1e-5}


@pytest.fixture
def small(monkeypatch):
    """Make every known backbone small enough for a test."""
    for name, backbone in module.BACKBONES.items():
        small_backbone = dataclasses.replace(
            backbone,
            architecture="vit_tiny_patch16_224",
            arguments={**backbone.arguments, **SMALL},
            image_size=112,  # a multiple of all patch sizes
        )
        monkeypatch.setitem(module.BACKBONES, name, small_backbone)


def weights_of(name):
    """Draw weights of a small backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ImageEncoder(module.BACKBONES[name].config)
    return {key: tensor.clone() for key, tensor in encoder.backbone.state_dict().items()}


def test_the_list_has_every_backbone_and_its_facts():
    table = backbones()
    assert set(table.index) == set(PARAMETERS)
    assert len(table) >= 20
    assert table.loc["H-optimus-0", "mean"] == (0.707223, 0.578729, 0.703617)
    assert table.loc["Midnight-12k", ["hub_id", "license", "gated", "commercial"]].tolist() == [
        "kaiko-ai/midnight",
        "MIT",
        False,
        True,
    ]
    assert table.loc["Virchow2", ["width", "pooling"]].tolist() == [2560, "class+mean"]
    assert set(table["scale"]) == {"stated", "20x", "assumed"}
    assert not set(table.index) & set(module.UNFIT)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_row_has_a_commit_or_none_and_at_least_two_sources(name):
    backbone = module.BACKBONES[name]
    assert re.fullmatch(r"([0-9a-f]{40})?", backbone.revision)
    assert len(set(backbone.sources)) >= 2
    assert "NC" not in backbone.license or not backbone.commercial


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_the_stated_width_and_size(name):
    backbone = module.BACKBONES[name]
    with torch.device("meta"):
        encoder = ImageEncoder(backbone.config)
    assert encoder.width == backbone.width
    size = sum(parameter.numel() for parameter in encoder.backbone.parameters()) / 1e6
    assert size == pytest.approx(PARAMETERS[name], abs=0.1)


def published_features(name, encoder, images):
    """Compute the features with timm's own forward, and with the pooling written out."""
    config = encoder.config
    pixels = images.permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    vit = encoder.backbone
    tokens = vit.forward_features((pixels - mean) / std)
    if name == "CONCH":
        pool = encoder.pool
        keys = F.layer_norm(tokens, (768,), pool.token_norm.weight, pool.token_norm.bias)
        query = F.layer_norm(pool.query, (512,), pool.query_norm.weight, pool.query_norm.bias)
        attention = pool.attention
        biases = attention.in_proj_bias.chunk(3)
        q = (query @ attention.q_proj_weight.T + biases[0]).view(1, 8, 64)
        k = (keys @ attention.k_proj_weight.T + biases[1]).unflatten(-1, (8, 64))
        v = (keys @ attention.v_proj_weight.T + biases[2]).unflatten(-1, (8, 64))
        weights = torch.einsum("qhd,nlhd->nhl", q, k / 8).softmax(-1)
        pooled = torch.einsum("nhl,nlhd->nhd", weights, v).flatten(1)
        return F.layer_norm(attention.out_proj(pooled), (512,), pool.norm.weight, pool.norm.bias)
    if module.BACKBONES[name].pooling == "class":
        # The head of timm has no weights: its output is the class token after the last norm.
        return vit.forward_head(tokens)
    n_squares = (config.image_size // vit.patch_embed.patch_size[0]) ** 2
    return torch.cat([tokens[:, 0], tokens[:, -n_squares:].mean(1)], dim=1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_features_are_those_of_the_authors(name):
    """One layer of each architecture, with random weights, against timm's own forward."""
    config = module.BACKBONES[name].config
    config = dataclasses.replace(config, backbone_args={**config.backbone_args, "depth": 1})
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        encoder = ImageEncoder(config).eval()
        for parameter in encoder.parameters():  # also those that start as zeros and ones
            parameter.add_(torch.randn_like(parameter) * 0.02)
        size = config.image_size
        images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
        features = encoder(images)
        expected = published_features(name, encoder, images)
    assert features.shape == (2, module.BACKBONES[name].width)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert not any("prompt" in key or "reference" in key for key in encoder.state_dict())


LOAD = """
import sys, torch
from stp.models import load_backbone
encoder = load_backbone("Lunit DINO ViT-S/16", path=sys.argv[1])
images = torch.arange(224 * 224 * 3).remainder(251).to(torch.uint8).view(1, 224, 224, 3)
with torch.inference_mode():
    print(encoder.digest, encoder(images).numpy().tobytes().hex())
"""


@pytest.mark.slow
def test_two_loads_in_two_processes_give_one_digest_and_the_same_bits(tmp_path):
    save_file(weights_of("Lunit DINO ViT-S/16"), tmp_path / "w.safetensors")
    command = [sys.executable, "-c", LOAD, tmp_path / "w.safetensors"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    digest, features = run.stdout.split()
    encoder = load_backbone("Lunit DINO ViT-S/16", path=tmp_path / "w.safetensors")
    images = torch.arange(224 * 224 * 3).remainder(251).to(torch.uint8).view(1, 224, 224, 3)
    with torch.inference_mode():
        assert encoder(images).numpy().tobytes().hex() == features
    assert encoder.digest == digest


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
    images = torch.randint(0, 256, (1, 112, 112, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(images), encoder(images))


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


def serve(hub, name, file_name, file):
    """Serve the weights of a backbone at the commit that is loaded; return the commit."""
    backbone = module.BACKBONES[name]
    commit = hub.commit(backbone.hub_id, {file_name: file.read_bytes()})
    commits = hub.repositories[backbone.hub_id].commits
    commits[backbone.revision or commit] = commits[commit]
    return backbone.revision or commit


def test_a_gated_download_is_explained(hub, tmp_path):
    (tmp_path / "w.bin").touch()
    serve(hub, "UNI", "pytorch_model.bin", tmp_path / "w.bin")
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
    serve(hub, "UNI", "pytorch_model.bin", tmp_path / "w.bin")
    encoder = load_backbone("UNI")
    for key, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[key])
    names = [request.rpartition("/")[2] for request in hub.requests]
    assert names[0] == "model.safetensors" and set(names[1:]) == {"pytorch_model.bin"}


def test_the_card_has_the_commit_license_and_terms(small, hub, tmp_path):
    save_file(weights_of("mSTAR"), tmp_path / "w.safetensors")
    commit = serve(hub, "mSTAR", "model.safetensors", tmp_path / "w.safetensors")
    encoder = load_backbone("mSTAR")
    assert encoder.name == "mSTAR"
    assert encoder.card.trained_on == (
        f"weights of mSTAR by its authors, from Wangyh/mSTAR at commit {commit}",
    )
    assert encoder.card.license == "CC-BY-NC-ND-4.0" and encoder.card.no_derivatives()
    assert encoder.card.terms == ("The terms forbid commercial use.",)
    encoder.save_pretrained(tmp_path / "saved")
    assert ImageEncoder.from_pretrained(tmp_path / "saved").card == encoder.card
    assert "The terms forbid commercial use." in (tmp_path / "saved" / "README.md").read_text()


@pytest.fixture
def log(caplog):
    """Record the messages of the package's logger."""
    logger = logging.getLogger("stp")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize(
    "prefix", ["backbone.", "model.", "module.", "teacher.", "module.teacher.backbone."]
)
def test_prefixes_and_heads_are_stripped_and_logged(prefix, small, tmp_path, log):
    weights = weights_of("UNI")
    n_weights = len(weights)
    weights |= {"head.weight": torch.ones(2, 32), "head.bias": torch.ones(2)}
    torch.save({f"{prefix}{key}": tensor for key, tensor in weights.items()}, tmp_path / "w.bin")
    encoder = load_backbone("UNI", path=tmp_path / "w.bin")
    for key, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, weights[key])
    messages = "\n".join(log.messages)
    stripped = prefix.removeprefix("module.")
    if stripped:
        assert f"w.bin: removed '{stripped}' from the names of {n_weights + 2}" in messages
    assert "w.bin: left out 2 tensors of heads: head.weight, head.bias." in messages


def test_of_a_teacher_and_a_student_the_teacher_is_loaded(small, tmp_path, log):
    weights = weights_of("UNI")
    state = {f"teacher.backbone.{key}": tensor for key, tensor in weights.items()}
    state |= {f"student.backbone.{key}": tensor + 1 for key, tensor in weights.items()}
    torch.save(state, tmp_path / "w.bin")
    nested = {
        side: {f"backbone.{key}": tensor + (side == "student") for key, tensor in weights.items()}
        for side in ("student", "teacher")
    }
    torch.save(nested, tmp_path / "nested.bin")
    for name in ("w.bin", "nested.bin"):
        encoder = load_backbone("UNI", path=tmp_path / name)
        assert torch.equal(encoder.backbone.norm.weight, weights["norm.weight"])
    assert (
        f"w.bin: left out {len(weights)} tensors of the student, used the teacher's."
        in log.messages
    )


def test_two_models_in_one_file_are_refused(small, tmp_path):
    weights = weights_of("UNI")
    both = {**weights, **{f"model.{key}": tensor + 1 for key, tensor in weights.items()}}
    torch.save(both, tmp_path / "w.bin")
    with pytest.raises(ValueError, match=r"several tensors for cls_token, among them model\.cls"):
        load_backbone("UNI", path=tmp_path / "w.bin")


def test_any_other_transformer_is_loaded_from_a_config_and_a_file(tmp_path):
    config = module.ImageEncoderConfig("vit_tiny_patch16_224", SMALL, image_size=64, um_per_px=1.0)
    weights = ImageEncoder(config).backbone.state_dict()
    save_file(weights, tmp_path / "mine.safetensors")
    encoder = load_backbone(config, path=tmp_path / "mine.safetensors")
    assert encoder.config == dataclasses.replace(config, has_prompt=False)
    assert encoder.name == "mine"
    assert torch.equal(encoder.backbone.norm.weight, weights["norm.weight"])
    with pytest.raises(ValueError, match="needs path="):
        load_backbone(config)


@pytest.mark.parametrize("name", module.UNFIT)
def test_what_timm_cannot_build_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=r"wrap it in stp\.models\.WrappedEncoder"):
        load_backbone(name)
