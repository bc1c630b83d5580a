"""Weights with the names of transformers, DINOv2 and CONCH give the features that they give."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import stp.models.published.backbones as module
from stp.models import ImageEncoder, load_backbone

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
# The names on the hub, which transformers 5 changes while it loads, and those of today.
HUB_NAMES = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.down_proj.": ".mlp.weights_out.",
}
VIT_NAMES = {
    "layers.": "encoder.layer.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    **HUB_NAMES,
}


def pictures(size):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)


def shrink(monkeypatch, name, **arguments):
    backbone = module.BACKBONES[name]
    arguments = {**backbone.arguments, **SMALL, **arguments}
    small = dataclasses.replace(backbone, arguments=arguments, image_size=56)
    monkeypatch.setitem(module.BACKBONES, name, small)


def randomize(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def rename(state, names):
    """Return weights with the names that they have on the hub."""
    renamed = {}
    for name, tensor in state.items():
        if ".gate_proj." in name:
            other = state[name.replace("gate_proj", "up_proj")]
            renamed[name.replace("gate_proj", "weights_in")] = torch.cat([tensor, other])
        elif ".up_proj." not in name:
            renamed[name] = tensor.clone()
    for new, old in names.items():
        renamed = {name.replace(new, old): tensor for name, tensor in renamed.items()}
    return renamed


def check(name, theirs, state, tmp_path):
    """Load weights, and compare with the hidden states of transformers."""
    save_file(state, tmp_path / "w.safetensors")
    encoder = load_backbone(name, path=tmp_path / "w.safetensors")
    config = encoder.config
    images = pictures(config.image_size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    pixels = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        hidden = theirs(pixel_values=pixels).last_hidden_state
        features = encoder(images)
    expected = hidden[:, 0]
    if config.pooling == "class+mean":
        expected = torch.cat([expected, hidden[:, 1:].mean(1)], dim=1)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("names", [{}, HUB_NAMES], ids=["today", "hub"])
@pytest.mark.parametrize("image_size", [56, 98])
def test_midnight_has_the_features_of_transformers_also_if_positions_are_resized(
    names, image_size, monkeypatch, tmp_path
):
    transformers = pytest.importorskip("transformers")
    shrink(monkeypatch, "Midnight-12k", mlp_ratio=5.5)
    config = transformers.Dinov2Config(use_swiglu_ffn=True, image_size=image_size, **SIZE)
    theirs = randomize(transformers.Dinov2Model(config))
    state = rename(theirs.state_dict(), names) if names else theirs.state_dict()
    check("Midnight-12k", theirs, state, tmp_path)


def test_hibou_has_the_features_of_transformers(monkeypatch, tmp_path):
    """Its class token has a position, which timm adds to the token."""
    transformers = pytest.importorskip("transformers")
    shrink(monkeypatch, "Hibou-B", mlp_ratio=5.5)
    config = transformers.Dinov2WithRegistersConfig(
        use_swiglu_ffn=True, image_size=56, num_register_tokens=4, **SIZE
    )
    theirs = randomize(transformers.Dinov2WithRegistersModel(config))
    check("Hibou-B", theirs, rename(theirs.state_dict(), HUB_NAMES), tmp_path)


@pytest.mark.parametrize("names", [{}, VIT_NAMES], ids=["today", "hub"])
def test_phikon_has_the_features_of_transformers(names, monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")
    shrink(monkeypatch, "Phikon", patch_size=14)
    config = transformers.ViTConfig(
        image_size=56, intermediate_size=128, layer_norm_eps=1e-6, **SIZE
    )
    theirs = randomize(transformers.ViTModel(config))  # with a pooler, which is a head
    check("Phikon", theirs, rename(theirs.state_dict(), names), tmp_path)


def dinov2_names(state):
    """Return weights as DINOv2 saves them: in chunks, and with the position of the class token."""
    theirs = {"mask_token": torch.zeros(1, 32)}
    for name, tensor in state.items():
        if name == "pos_embed":
            tensor = torch.cat([torch.full((1, 1, 32), 0.25), tensor], dim=1)
        if name == "cls_token":
            tensor = tensor - 0.25
        name = name.replace("reg_token", "register_tokens")
        name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        theirs[name.replace("blocks.", "blocks.0.")] = tensor.contiguous()
    return theirs


def test_openmidnight_is_read_with_the_names_of_dinov2(monkeypatch, tmp_path):
    shrink(monkeypatch, "OpenMidnight")
    source = randomize(ImageEncoder(module.BACKBONES["OpenMidnight"].config))
    state = source.backbone.state_dict()
    torch.save({"teacher": dinov2_names(state), "epoch": 3}, tmp_path / "w.pt")
    encoder = load_backbone("OpenMidnight", path=tmp_path / "w.pt")
    for name, tensor in encoder.backbone.state_dict().items():
        torch.testing.assert_close(tensor, state[name])


def test_the_image_tower_of_conch_is_read_and_its_texts_are_left(monkeypatch, tmp_path):
    backbone = dataclasses.replace(
        module.BACKBONES["CONCH"], arguments=SMALL, image_size=64, pooled_width=16
    )
    monkeypatch.setitem(module.BACKBONES, "CONCH", backbone)
    source = randomize(ImageEncoder(backbone.config))
    state = source.state_dict()
    parts = {
        "backbone.": "visual.trunk.",
        "pool.query_norm": "visual.attn_pool_contrast.ln_q",
        "pool.token_norm": "visual.attn_pool_contrast.ln_k",
        "pool.attention": "visual.attn_pool_contrast.attn",
        "pool.query": "visual.attn_pool_contrast.query",
        "pool.norm": "visual.ln_contrast",
    }
    theirs = {}
    for name, tensor in state.items():
        ours = next(part for part in parts if name.startswith(part))
        theirs[parts[ours] + name.removeprefix(ours)] = tensor
    theirs["visual.proj_contrast"] = torch.ones(16, 16)
    theirs["visual.attn_pool_caption.query"] = torch.ones(256, 16)
    theirs["text.token_embedding.weight"] = torch.ones(2, 2)
    theirs["logit_scale"] = torch.ones(())
    torch.save(theirs, tmp_path / "pytorch_model.bin")
    encoder = load_backbone("CONCH", path=tmp_path / "pytorch_model.bin")
    assert encoder.digest == source.digest


def test_kaikos_positions_are_resized_as_timm_resizes_them(monkeypatch, tmp_path):
    import timm

    shrink(monkeypatch, "Kaiko ViT-L/14")
    theirs = timm.create_model(
        "vit_large_patch14_reg4_dinov2", num_classes=0, img_size=98, dynamic_img_size=True, **SMALL
    )
    randomize(theirs)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    encoder = load_backbone("Kaiko ViT-L/14", path=tmp_path / "w.safetensors")
    images = pictures(56)
    with torch.no_grad():
        expected = theirs((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        features = encoder(images)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_positions_of_another_grid_are_refused_if_the_authors_resize_none(monkeypatch, tmp_path):
    shrink(monkeypatch, "UNI", patch_size=14)
    source = ImageEncoder(dataclasses.replace(module.BACKBONES["UNI"].config, image_size=98))
    save_file(source.backbone.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit UNI: of another shape: pos_embed is"):
        load_backbone("UNI", path=tmp_path / "w.safetensors")


def test_attention_pooling_weighs_outputs_by_their_likeness_to_the_query():
    """With zero keys, all outputs count alike: the pooled value is their mean."""
    from stp.models.pooling import AttentionPool

    pool = AttentionPool(16, 8).eval()
    with torch.no_grad():
        pool.attention.k_proj_weight.zero_()
        tokens = torch.randn(2, 5, 16)
        values = F.linear(F.layer_norm(tokens, (16,)), pool.attention.v_proj_weight)
        expected = F.layer_norm(pool.attention.out_proj(values.mean(1)), (8,))
        torch.testing.assert_close(pool(tokens), expected)
