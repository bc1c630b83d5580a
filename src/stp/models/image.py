"""ImageEncoder: any timm vision transformer with one more token after CLS (paper, section 3.3)."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from stp._config import require_positive
from stp.models.saved.pretrained import Pretrained

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Backbone and input of an ImageEncoder.

    The defaults are the paper's UNI: ViT-L/16, patches of 224 pixels at 0.5 µm per pixel.

    Parameters
    ----------
    backbone
        Name of a vision transformer in timm that has a class token.
    backbone_args
        Further arguments of `timm.create_model`, e.g.
        `{"depth": 4, "embed_dim": 128, "num_heads": 4}`.
    image_size
        Number of pixels per side of a patch.
    um_per_px
        µm per pixel of a patch.
    mean
        Mean of each channel, between 0 and 1, in the order in which the backbone reads them.
    std
        Standard deviation of each channel, in the same order as `mean`.
    channel_order
        Order in which the backbone reads the channels: "rgb" or "bgr".
    pretrained
        Start from timm's weights for this backbone.

    Examples
    --------
    >>> stp.models.ImageEncoderConfig(
    ...     "vit_tiny_patch16_224", {"depth": 2}, image_size=64, um_per_px=2.0
    ... ).image_size
    64
    """

    backbone: str = "vit_large_patch16_224"
    backbone_args: Mapping[str, Any] = field(default_factory=lambda: {"init_values": 1e-5})
    image_size: int = 224
    um_per_px: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: str = "rgb"
    pretrained: bool = False

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', not {self.channel_order!r}")
        require_positive(self, "image_size", "um_per_px")


class ImageOutput(NamedTuple):
    """Outputs of an ImageEncoder for n images."""

    # Output of the class token (n, width).
    features: torch.Tensor
    # Output of the prompt of a patch, or of the patch token of a region (n, width).
    patch_token: torch.Tensor
    # Outputs of the squares that the backbone cuts an image into (n, grid * grid, width).
    tokens: torch.Tensor


class ImageEncoder(Pretrained):
    """Encode patches and regions with one backbone.

    The backbone reads one more token after CLS. For a patch it is a learned prompt token. For a
    region it is the patch token: the patch that the region contains, shrunk to one token.

    Parameters
    ----------
    config
        Backbone, scale and normalization of the encoder.

    Examples
    --------
    >>> config = stp.models.ImageEncoderConfig(
    ...     "vit_tiny_patch16_224", backbone_args={}, um_per_px=2.0
    ... )
    >>> encoder = stp.models.ImageEncoder(config)
    >>> encoder.width
    192
    """

    config_class = ImageEncoderConfig
    reads_genes = False
    config: ImageEncoderConfig
    backbone: Any  # a VisionTransformer of timm
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        # A saved config must rebuild the module without downloading the start weights again.
        self.config = replace(config, pretrained=False)
        self.backbone = _create_backbone(config)
        self.prompt = nn.Parameter(torch.randn(1, 1, self.width) * 0.02)
        # It projects the patch token. Saved weights have this name, so it stays.
        self.reference_projection = nn.Linear(self.width, self.width)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(config.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(shape), persistent=False)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.backbone.embed_dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (n, width) of patches (n, size, size, 3) uint8."""
        return self.encode(images).features

    def encode(self, images: torch.Tensor, patches: torch.Tensor | None = None) -> ImageOutput:
        """Return all outputs for patches, or for regions with their patches.

        Parameters
        ----------
        images
            Patches or regions (n, size, size, 3) uint8.
        patches
            If the images are regions: the patch that each of them contains, in the same shape.
        """
        if patches is None:
            prompt = self.prompt.expand(len(images), -1, -1)
        else:
            prompt = self.reference_projection(self._shrink_to_tokens(patches))
        return self.encode_with(self._normalize(images), prompt)

    def encode_with(self, pixels: torch.Tensor, prompt: torch.Tensor) -> ImageOutput:
        """Run the backbone with any token after CLS.

        Parameters
        ----------
        pixels
            Normalized images (n, 3, size, size).
        prompt
            The token after CLS (n, 1, width).
        """
        vit = self.backbone
        x = vit._pos_embed(vit.patch_embed(pixels))  # (n, prefix + grid * grid, width)
        x = torch.cat([x[:, :1], prompt.to(x.dtype), x[:, 1:]], dim=1)
        x = vit.norm(vit.blocks(vit.norm_pre(x)))
        return ImageOutput(x[:, 0], x[:, 1], x[:, 1 + vit.num_prefix_tokens :])

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        return (self._order_channels(images) / 255 - self.mean) / self.std

    def _order_channels(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (n, size, size, 3) as floats (n, 3, size, size) in the backbone's order."""
        pixels = images.permute(0, 3, 1, 2).float()
        return pixels.flip(1) if self.config.channel_order == "bgr" else pixels

    def _shrink_to_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """Return one token per patch (n, 1, width): shrunk, then embedded without a position."""
        embed = self.backbone.patch_embed
        small = F.interpolate(
            self._order_channels(patches),
            size=tuple(embed.patch_size),
            mode="bilinear",
            antialias=True,
        )
        token = embed.proj((small / 255 - self.mean) / self.std)  # (n, width, 1, 1)
        return embed.norm(token.flatten(2).transpose(1, 2))


def _create_backbone(config: ImageEncoderConfig) -> nn.Module:
    """Build the backbone; only a `VisionTransformer` of timm can take one more token."""
    import timm
    from timm.models import VisionTransformer

    # timm itself would also accept names of repositories and of files.
    if not timm.is_model(config.backbone):
        raise ValueError(
            f"timm has no model {config.backbone!r}; "
            "timm.list_models('vit*') lists models that can be a backbone"
        )
    valid = inspect.signature(VisionTransformer).parameters
    unknown = sorted(set(config.backbone_args) - set(valid))
    if unknown:
        raise ValueError(f"backbone_args has {unknown}, unknown to timm's VisionTransformer")
    arguments = {"num_classes": 0, "img_size": config.image_size, **config.backbone_args}
    if "mlp_layer" in arguments:
        arguments["mlp_layer"] = _mlp_layer(arguments["mlp_layer"])
    try:
        backbone = timm.create_model(config.backbone, pretrained=config.pretrained, **arguments)
    except TypeError as error:
        raise ValueError(
            f"timm cannot build {config.backbone!r} with {arguments}: {error}"
        ) from error
    if not isinstance(backbone, VisionTransformer) or backbone.cls_token is None:
        raise ValueError(
            f"backbone {config.backbone!r} is not a VisionTransformer of timm with a class token; "
            "choose one, e.g. 'vit_large_patch16_224'"
        )
    return backbone


def _mlp_layer(name: str) -> type[nn.Module]:
    """Return the layer class of timm with this name; a saved config has the name."""
    import timm

    if name not in MLP_LAYERS:
        raise ValueError(f"mlp_layer must be one of {MLP_LAYERS}, not {name!r}")
    return getattr(timm.layers, name)
