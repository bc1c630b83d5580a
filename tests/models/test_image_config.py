import pytest
import torch

from stp.models import ImageEncoder, ImageEncoderConfig, Stamp, StampConfig

TINY = {"embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("backbone", "args", "size", "better"),
    [
        ("vit_small_patch14_reg4_dinov2", {}, 256, "252 or 266"),
        ("vit_small_patch14_reg4_dinov2", {}, 237, "224 or 238"),
        ("vit_large_patch16_224", {}, 8, "16"),
        ("vit_tiny_patch16_224", {"patch_size": 14}, 224 + 16, "238 or 252"),
        ("vit_giant_patch14_dinov2", {"patch_size": 16}, 14 * 9, "112 or 128"),
    ],
)
def test_a_size_that_leaves_pixels_unseen_is_refused_at_once(backbone, args, size, better):
    with pytest.raises(
        ValueError, match=rf"image_size {size} is no multiple of .*; choose {better}"
    ):
        ImageEncoderConfig(backbone, {**TINY, **args}, image_size=size)


def test_a_patch_size_that_only_timm_knows_is_checked_while_building():
    config = ImageEncoderConfig("test_vit", {}, image_size=40)  # with squares of 16 pixels
    with pytest.raises(ValueError, match="image_size 40 is no multiple of 16"):
        ImageEncoder(config)


@pytest.mark.parametrize("has_prompt", [False, True])
def test_images_of_another_size_are_refused_also_if_the_backbone_takes_any(has_prompt):
    """With `dynamic_img_size`, timm would cut off what its squares do not fill."""
    args = {"dynamic_img_size": True, **TINY}
    config = ImageEncoderConfig("vit_tiny_patch16_224", args, image_size=64, has_prompt=has_prompt)
    encoder = ImageEncoder(config).eval()
    right = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    wrong = torch.zeros(2, 72, 72, 3, dtype=torch.uint8)
    message = r"shape \(2, 72, 72, 3\), and the encoder reads \(n, 64, 64, 3\)"
    with pytest.raises(ValueError, match=message):
        encoder(wrong)
    if has_prompt:
        with pytest.raises(ValueError, match=message):
            encoder.encode(wrong, patches=right)
        with pytest.raises(ValueError, match=message):
            encoder.encode(right, patches=wrong)


def test_an_encoder_that_was_not_aligned_has_no_prompt_and_no_regions(vocabulary):
    config = ImageEncoderConfig("vit_tiny_patch16_224", TINY, image_size=64, has_prompt=False)
    encoder = ImageEncoder(config).eval()
    images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert encoder(images).shape == (1, 32)
    assert all(name.startswith("backbone.") for name in encoder.state_dict())
    with pytest.raises(ValueError, match=r"was not aligned: .* stp\.train\.align"):
        encoder.encode(images, patches=images)
    with pytest.raises(ValueError, match="needs its prompt"):
        Stamp(StampConfig(image=config), vocabulary)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, r"pooling must be one of \['class', 'class\+mean', 'attention'\]"),
        ({"pooling": "attention"}, "pooled_width is None with pooling 'attention'"),
        ({"pooled_width": 8}, "pooled_width is 8 with pooling 'class'"),
    ],
)
def test_pooling_is_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageEncoderConfig(**settings)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"img_size": 224}, "give it as image_size"),
        ({"global_pool": "avg"}, "normalizes after its own pooling"),
    ],
)
def test_arguments_that_would_change_the_features_are_refused(args, message):
    config = ImageEncoderConfig("vit_tiny_patch16_224", {**TINY, **args}, image_size=64)
    with pytest.raises(ValueError, match=message):
        ImageEncoder(config)


@pytest.mark.parametrize(
    ("pooling", "width", "pooled_width"),
    [("class", 32, None), ("class+mean", 64, None), ("attention", 16, 16)],
)
@pytest.mark.parametrize("has_prompt", [False, True])
def test_an_encoder_of_any_pooling_is_saved_and_loaded(
    pooling, width, pooled_width, has_prompt, tmp_path
):
    config = ImageEncoderConfig(
        "vit_tiny_patch16_224",
        TINY,
        image_size=64,
        has_prompt=has_prompt,
        pooling=pooling,
        pooled_width=pooled_width,
    )
    encoder = ImageEncoder(config).eval()
    encoder.save_pretrained(tmp_path)
    again = ImageEncoder.from_pretrained(tmp_path)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = encoder(images)
        assert features.shape == (2, width) and encoder.width == width
        assert torch.equal(again(images), features)
    assert again.digest == encoder.digest


def test_the_mean_is_that_of_the_squares_without_prompt_and_registers():
    config = ImageEncoderConfig(
        "vit_small_patch14_reg4_dinov2", TINY, image_size=42, pooling="class+mean"
    )
    encoder = ImageEncoder(config).eval()
    images = torch.randint(0, 256, (2, 42, 42, 3), dtype=torch.uint8)
    with torch.no_grad():
        output = encoder.encode(images)
    assert output.tokens.shape == (2, 9, 32)
    torch.testing.assert_close(output.features[:, 32:], output.tokens.mean(1))
