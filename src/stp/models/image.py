"""ImageEncoder: any timm vision transformer, aligned ones with a prompt (paper, section 3.3)."""

import inspect
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from stp.models.image_config import ImageEncoderConfig, check_image_size
from stp.models.patch_encoder import PatchEncoder, check_images, normalize
from stp.models.pooling import AttentionPool, class_and_mean
from stp.models.saved.hub import HUB, fetch
from stp.models.saved.pretrained import Pretrained

TIMM_WEIGHTS = "model.safetensors"  # the file of every repository of timm on the hub
MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")


class ImageOutput(NamedTuple):
    """Outputs of an ImageEncoder for n images."""

    # Pooled outputs (n, width).
    features: torch.Tensor
    # Output of the prompt of a patch, or of the patch token of a region (n, token_width).
    patch_token: torch.Tensor
    # Outputs of the squares that the backbone cuts an image into (n, grid * grid, token_width).
    tokens: torch.Tensor


class ImageEncoder(Pretrained, PatchEncoder):
    """Encode patches, and regions after alignment, with one backbone.

    In a Stamp, the backbone reads one more token after CLS. For a patch it is a learned prompt
    token. For a region it is the patch token: the patch that the region contains, shrunk to one
    token. An encoder that was not aligned has neither (`has_prompt=False`).

    Parameters
    ----------
    config
        Backbone, scale and normalization of the encoder.

    Examples
    --------
    >>> config = stp.models.ImageEncoderConfig(
    ...     "vit_tiny_patch16_224", backbone_args={}, um_per_px=2.0, has_prompt=False
    ... )
    >>> encoder = stp.models.ImageEncoder(config)
    >>> encoder.width
    192
    """

    config_class = ImageEncoderConfig
    reads_genes = False
    name = ""
    config: ImageEncoderConfig
    backbone: Any  # a VisionTransformer of timm
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        # A saved config must rebuild the module without downloading the start weights again.
        self.config = replace(config, pretrained=False)
        self.backbone = _create_backbone(config)
        width = self.token_width
        if config.has_prompt:
            self.prompt = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            # It projects the patch token. Saved weights have this name, so it stays.
            self.reference_projection = nn.Linear(width, width)
        if config.pooled_width is not None:
            self.pool = AttentionPool(width, config.pooled_width)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(config.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(shape), persistent=False)

    def _describe_parts(self) -> dict[str, str]:
        return {"images": self.config.describe(), "features": str(self.width)}

    @property
    def token_width(self) -> int:
        """Width of the outputs of the backbone."""
        return self.backbone.embed_dim

    @property
    def width(self) -> int:
        """Width of the features."""
        if self.config.pooled_width is not None:
            return self.config.pooled_width
        return self.token_width * (2 if self.config.pooling == "class+mean" else 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (n, width) of patches (n, size, size, 3) uint8."""
        if self.config.has_prompt:
            return self.encode(images).features
        vit = self.backbone
        x = vit._pos_embed(vit.patch_embed(self._normalize(images)))
        x = vit.norm(vit.blocks(vit.norm_pre(x)))
        return self._pool(x, x[:, vit.num_prefix_tokens :])

    def encode(self, images: torch.Tensor, patches: torch.Tensor | None = None) -> ImageOutput:
        """Return all outputs for patches, or for regions with their patches.

        Parameters
        ----------
        images
            Patches or regions (n, size, size, 3) uint8.
        patches
            If the images are regions: the patch that each of them contains, in the same shape.

        Raises
        ------
        ValueError
            If the encoder was not aligned, or images have another size than it reads.
        """
        if not self.config.has_prompt:
            raise ValueError(
                f"{self.name or 'this encoder'} was not aligned: it has no prompt token and no "
                "regions; call it on patches, or align it with stp.train.align"
            )
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
            The token after CLS (n, 1, token_width).
        """
        vit = self.backbone
        x = vit._pos_embed(vit.patch_embed(pixels))  # (n, prefix + grid * grid, width)
        x = torch.cat([x[:, :1], prompt.to(x.dtype), x[:, 1:]], dim=1)
        x = vit.norm(vit.blocks(vit.norm_pre(x)))
        tokens = x[:, 1 + vit.num_prefix_tokens :]
        return ImageOutput(self._pool(x, tokens), x[:, 1], tokens)

    def _pool(self, outputs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the features of all outputs of the backbone, of which `tokens` are the squares."""
        if self.config.pooling == "attention":
            return self.pool(outputs)
        if self.config.pooling == "class+mean":
            return class_and_mean(outputs[:, 0], tokens)
        return outputs[:, 0]

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        return normalize(self._order_channels(images), self.mean, self.std)

    def _order_channels(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (n, size, size, 3) as floats (n, 3, size, size) in the backbone's order."""
        check_images(images, self.config.image_size)
        pixels = images.permute(0, 3, 1, 2).float()
        return pixels.flip(1) if self.config.channel_order == "bgr" else pixels

    def _shrink_to_tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """Return one token per patch (n, 1, token_width), embedded without a position."""
        embed = self.backbone.patch_embed
        small = F.interpolate(
            self._order_channels(patches),
            size=tuple(embed.patch_size),
            mode="bilinear",
            antialias=True,
        )
        token = embed.proj(normalize(small, self.mean, self.std))  # (n, token_width, 1, 1)
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
    if "img_size" in config.backbone_args:
        raise ValueError("backbone_args has img_size; give it as image_size of the config")
    arguments = {"num_classes": 0, "img_size": config.image_size, **config.backbone_args}
    if "mlp_layer" in arguments:
        arguments["mlp_layer"] = _mlp_layer(arguments["mlp_layer"])
    weights = _find_timm_weights(config.backbone) if config.pretrained else {}
    try:
        backbone = timm.create_model(
            config.backbone,
            pretrained=config.pretrained,
            pretrained_cfg_overlay=weights,
            **arguments,
        )
    except TypeError as error:
        raise ValueError(
            f"timm cannot build {config.backbone!r} with {arguments}: {error}"
        ) from error
    if not isinstance(backbone, VisionTransformer) or backbone.cls_token is None:
        raise ValueError(
            f"backbone {config.backbone!r} is not a VisionTransformer of timm with a class token; "
            "choose one, e.g. 'vit_large_patch16_224'"
        )
    if isinstance(backbone.norm, nn.Identity):
        raise ValueError(
            f"backbone {config.backbone!r} normalizes after its own pooling, which is not used "
            "here; leave global_pool and fc_norm out of backbone_args, or choose another backbone"
        )
    for size in backbone.patch_embed.patch_size:
        check_image_size(config.image_size, size)
    return backbone


def _find_timm_weights(name: str) -> dict[str, Any]:
    """Return what timm has to know to read its weights from a local file, downloaded if needed.

    Without this, timm itself asks the hub, for a minute if the hub is out of reach.
    """
    import timm

    published = timm.get_pretrained_cfg(name)
    if published is None or not published.hf_hub_id:
        return {}
    page = f"{HUB}/{published.hf_hub_id}"
    remedy = (
        f"download {TIMM_WEIGHTS} from {page} and pass it to "
        "stp.models.load_backbone(config, path=), or leave pretrained=False"
    )
    file = fetch(published.hf_hub_id, [TIMM_WEIGHTS], remedy=remedy)
    return {"file": str(file), "custom_load": False}


def _mlp_layer(name: str) -> type[nn.Module]:
    """Return the layer class of timm with this name; a saved config has the name."""
    import timm

    if name not in MLP_LAYERS:
        raise ValueError(f"mlp_layer must be one of {MLP_LAYERS}, not {name!r}")
    return getattr(timm.layers, name)
