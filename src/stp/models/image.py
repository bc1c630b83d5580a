"""ImageEncoder: any timm vision transformer with a prompt token after CLS (paper, section 3.3)."""

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
    """Backbone and input of an ImageEncoder; the defaults are the paper's UNI: ViT-L/16, 224 px at 0.5 um per pixel.

    Parameters
    ----------
    backbone
        Name of a vision transformer with a class token in timm.
    backbone_args
        Further arguments of `timm.create_model`, e.g. `{"depth": 4, "embed_dim": 128, "num_heads": 4}`.
    image_size, um_per_px
        Pixels per side of a patch and their scale.
    mean, std
        Normalization of the channels, in stored order.
    channel_order
        "rgb", or "bgr" for weights trained so.
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
    """What the encoder makes of n images."""

    features: torch.Tensor  # (n, width): CLS
    reference: (
        torch.Tensor
    )  # (n, width): the prompt token's output; for a region, of the shrunk patch
    tokens: torch.Tensor  # (n, grid * grid, width)


class ImageEncoder(Pretrained):
    """Encode patches and regions with one backbone.

    A patch carries the learned prompt token; a region carries its patch instead, shrunk to one token.

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
    backbone: Any  # a VisionTransformer of timm
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        # What is saved must rebuild the module without fetching the start weights again.
        self.config = replace(config, pretrained=False)
        self.backbone = _create_backbone(config)
        self.prompt = nn.Parameter(torch.randn(1, 1, self.width) * 0.02)
        self.reference_projection = nn.Linear(self.width, self.width)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(config.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(shape), persistent=False)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.backbone.embed_dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode patches (n, size, size, 3) uint8: features (n, width)."""
        return self.encode(images).features

    def encode(self, images: torch.Tensor, references: torch.Tensor | None = None) -> ImageOutput:
        """Encode images; with `references`, the patches of the same shape that these regions contain."""
        if references is None:
            prompt = self.prompt.expand(len(images), -1, -1)
        else:
            prompt = self.reference_projection(self._shrunk(references))
        return self.encode_with(self._normalized(images), prompt)

    def encode_with(self, pixels: torch.Tensor, prompt: torch.Tensor) -> ImageOutput:
        """Run the backbone on normalized pixels (n, 3, size, size) with a prompt token (n, 1, width) after CLS."""
        vit = self.backbone
        x = vit._pos_embed(vit.patch_embed(pixels))  # (n, prefix + grid * grid, width)
        x = torch.cat([x[:, :1], prompt.to(x.dtype), x[:, 1:]], dim=1)
        x = vit.norm(vit.blocks(vit.norm_pre(x)))
        return ImageOutput(x[:, 0], x[:, 1], x[:, 1 + vit.num_prefix_tokens :])

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        return (self._channels(images) / 255 - self.mean) / self.std

    def _channels(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float()  # (n, 3, size, size)
        return pixels.flip(1) if self.config.channel_order == "bgr" else pixels

    def _shrunk(self, patches: torch.Tensor) -> torch.Tensor:
        """Shrink patches to one token each (n, 1, width): bilinear, antialiased, embedded without position."""
        size = self.backbone.patch_embed.patch_size
        small = F.interpolate(
            self._channels(patches), size=tuple(size), mode="bilinear", antialias=True
        )
        token = self.backbone.patch_embed.proj(
            (small / 255 - self.mean) / self.std
        )  # (n, width, 1, 1)
        return self.backbone.patch_embed.norm(token.flatten(2).transpose(1, 2))


def _create_backbone(config: ImageEncoderConfig) -> nn.Module:
    """Build the backbone; of timm's models only a `VisionTransformer` can take a prompt token."""
    import timm
    from timm.models import VisionTransformer

    if not timm.is_model(
        config.backbone
    ):  # timm itself would also take names of repositories and of files
        raise ValueError(
            f"timm has no {config.backbone!r}; timm.list_models('vit*') lists what may be a backbone"
        )
    if strange := sorted(
        set(config.backbone_args) - set(inspect.signature(VisionTransformer).parameters)
    ):
        raise ValueError(
            f"backbone_args has {strange}, which are none of a VisionTransformer of timm"
        )
    sizes = {"num_classes": 0, "img_size": config.image_size, **config.backbone_args}
    if "mlp_layer" in sizes:  # by name, so that the config can be written
        if sizes["mlp_layer"] not in MLP_LAYERS:
            raise ValueError(f"mlp_layer must be one of {MLP_LAYERS}, not {sizes['mlp_layer']!r}")
        sizes["mlp_layer"] = getattr(timm.layers, sizes["mlp_layer"])
    try:
        backbone = timm.create_model(config.backbone, pretrained=config.pretrained, **sizes)
    except TypeError as error:
        raise ValueError(f"timm builds no {config.backbone!r} with {sizes}: {error}") from error
    if not isinstance(backbone, VisionTransformer) or backbone.cls_token is None:
        raise ValueError(
            f"backbone {config.backbone!r} is no VisionTransformer of timm with a class token; choose one that is"
        )
    return backbone
