"""The config of an ImageEncoder: its backbone, the patches that it reads, and its features."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stp._config import require_positive
from stp.models.pooling import POOLINGS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    has_prompt
        Whether the backbone reads a prompt token after CLS, as in a Stamp. Without it, the
        features are those of the backbone alone.
    pooling
        Which outputs are the features: "class" (class token), "class+mean" (class token and mean
        of the patch tokens) or "attention" (all outputs, weighted by a learned query).
    pooled_width
        Width of the features of attention pooling; None for the other kinds of pooling.

    Raises
    ------
    ValueError
        If a value is unknown or out of range, or `image_size` is no multiple of the patch size of
        the backbone.

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
    has_prompt: bool = True
    pooling: str = "class"
    pooled_width: int | None = None

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', not {self.channel_order!r}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}, not {self.pooling!r}")
        if (self.pooling == "attention") != (self.pooled_width is not None):
            raise ValueError(
                f"pooled_width is {self.pooled_width} with pooling {self.pooling!r}; "
                "attention pooling needs it, the other kinds take none"
            )
        require_positive(self, "image_size", "um_per_px")
        check_image_size(self.image_size, self._stated_patch_size())

    def describe(self) -> str:
        """Return what an encoder with this config sees of a slide, and with which backbone."""
        width_um = self.image_size * self.um_per_px
        return f"{self.image_size} px of {self.um_per_px:g} µm ({width_um:g} µm), {self.backbone}"

    def _stated_patch_size(self) -> int | None:
        """Return the patch size of the backbone if the arguments or its name state it."""
        size = self.backbone_args.get("patch_size")
        if size is None and (stated := re.search(r"patch(\d+)", self.backbone)):
            return int(stated[1])
        return size if isinstance(size, int) else None


def check_image_size(image_size: int, patch_size: int | None) -> None:
    """Raise ValueError if squares of the patch size do not fill an image."""
    if patch_size and image_size % patch_size:
        smaller = image_size // patch_size * patch_size
        sizes = [size for size in (smaller, smaller + patch_size) if size]
        raise ValueError(
            f"image_size {image_size} is no multiple of {patch_size}, the patch size of the "
            f"backbone, which would not see the last {image_size - smaller} pixels; choose "
            f"{' or '.join(map(str, sizes))}"
        )
