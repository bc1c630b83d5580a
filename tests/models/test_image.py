import dataclasses

import pytest
import torch

from stp.models import ImageEncoder, ImageEncoderConfig

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
BACKBONES = {
    "plain": ("vit_tiny_patch16_224", {"patch_size": 8, **TINY}, 32, 4),
    "registers": ("vit_small_patch14_reg4_dinov2", TINY, 42, 3),
    "distilled": ("deit_tiny_distilled_patch16_224", TINY, 48, 3),
}


def build(name="plain", **changes):
    backbone, args, size, _ = BACKBONES[name]
    config = ImageEncoderConfig(backbone, args, image_size=size, um_per_px=4.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ImageEncoder(dataclasses.replace(config, **changes)).eval().requires_grad_(False)


def pictures(n, size=32, seed=0):
    return torch.randint(
        0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_any_vit_gives_features_patch_token_and_tokens(name):
    encoder = build(name)
    _, _, size, grid = BACKBONES[name]
    images = pictures(2, size)
    output = encoder.encode(images)
    assert output.features.shape == output.patch_token.shape == (2, 32)
    assert output.tokens.shape == (2, grid * grid, 32)
    assert encoder.width == 32
    assert torch.equal(encoder(images), output.features)


@pytest.mark.parametrize("name", BACKBONES)
def test_tokens_are_the_grid_in_row_major_order_after_all_prefix_tokens(name):
    """Without blocks a token sees its own pixels alone."""
    backbone, args, size, grid = BACKBONES[name]
    encoder = build(name, backbone_args={**args, "depth": 0})
    black = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    spotted = black.clone()
    side = size // grid
    spotted[:, side : 2 * side, -side:] = 255  # second row, last column
    changed = (encoder.encode(spotted).tokens - encoder.encode(black).tokens).abs().amax(dim=(0, 2))
    assert changed.nonzero().flatten().tolist() == [2 * grid - 1]


def test_prompt_stands_after_cls_and_changes_outputs():
    encoder = build()
    before = encoder.encode(pictures(1))
    encoder.prompt.normal_(generator=torch.Generator().manual_seed(1))
    after = encoder.encode(pictures(1))
    for name in before._fields:
        assert (getattr(after, name) - getattr(before, name)).abs().max() > 1e-3, name
    encoder = build(backbone_args={**BACKBONES["plain"][1], "depth": 0})
    patch_token = encoder.encode(pictures(1)).patch_token
    torch.testing.assert_close(patch_token, encoder.backbone.norm(encoder.prompt)[:, 0])


def test_region_carries_its_patch_instead_of_the_prompt():
    encoder = build()
    region = pictures(1)
    patches = pictures(2, seed=1)
    first = encoder.encode(region, patches=patches[:1])
    second = encoder.encode(region, patches=patches[1:])
    for name in first._fields:
        assert (getattr(first, name) - getattr(second, name)).abs().max() > 1e-4, name
    encoder.prompt.normal_(generator=torch.Generator().manual_seed(1))
    assert torch.equal(encoder.encode(region, patches=patches[:1]).features, first.features)


def test_patch_token_is_the_embedded_patch_without_position():
    """A patch of one color, however large, shrinks to one token of that color."""
    encoder = build()
    region = pictures(1)
    color = torch.tensor([200, 30, 90], dtype=torch.uint8)
    patch = color.expand(1, 32, 32, 3)
    pixels = (
        (color / 255 - torch.tensor(encoder.config.mean)) / torch.tensor(encoder.config.std)
    ).view(1, 3, 1, 1)
    token = encoder.backbone.patch_embed(pixels.expand(1, 3, 32, 32))[:, :1]
    encoder.backbone.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    prompt = encoder.reference_projection(token)
    expected = encoder.encode_with(normalized(region, encoder.config), prompt)
    torch.testing.assert_close(
        encoder.encode(region, patches=patch).patch_token, expected.patch_token
    )


def normalized(images, config):
    return (
        images.permute(0, 3, 1, 2) / 255 - torch.tensor(config.mean).view(3, 1, 1)
    ) / torch.tensor(config.std).view(3, 1, 1)


def test_normalization_is_that_of_the_config():
    encoder = build(mean=(0.1, 0.5, 0.9), std=(0.5, 1.0, 2.0))
    images = pictures(2)
    expected = encoder.encode_with(
        normalized(images, encoder.config), encoder.prompt.expand(2, -1, -1)
    )
    torch.testing.assert_close(encoder(images), expected.features)
    assert (encoder(images) - build()(images)).abs().max() > 1e-3


@pytest.mark.parametrize("is_region", [False, True], ids=["patch", "region"])
def test_bgr_reverses_channels_and_normalizes_in_stored_order(is_region):
    rgb = build()
    bgr = build(channel_order="bgr")
    images = pictures(2)
    patches = pictures(2, seed=1) if is_region else None
    reversed_patches = patches.flip(-1) if is_region else None
    torch.testing.assert_close(
        bgr.encode(images.flip(-1), reversed_patches), rgb.encode(images, patches)
    )
    assert (bgr(images) - rgb(images)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("backbone", "args"),
    [
        ("vit_base_patch16_siglip_224", {"depth": 1}),
        ("swin_tiny_patch4_window7_224", {}),
        ("beit_base_patch16_224", {"depth": 1}),
        ("resnet18", {}),
    ],
)
def test_backbone_that_cannot_take_a_prompt_is_refused(backbone, args):
    with pytest.raises(ValueError, match=backbone):
        ImageEncoder(ImageEncoderConfig(backbone, args))


def test_backbone_arguments_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no_such_argument"):
        build(backbone_args={"no_such_argument": 1})


def test_channel_order_is_checked():
    with pytest.raises(ValueError, match="channel_order must be 'rgb' or 'bgr', not 'gbr'"):
        ImageEncoderConfig(channel_order="gbr")
