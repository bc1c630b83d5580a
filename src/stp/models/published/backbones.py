"""Pathology encoders that others trained: where their weights are, what they were made for, how to start from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stp.models.image import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, ImageEncoderConfig
from stp.models.saved.hub import HUB, fetch
from stp.models.saved.weights import check_shapes, read

if TYPE_CHECKING:
    import pandas as pd

HOPTIMUS: dict[str, Any] = {
    "mean": (0.707223, 0.578729, 0.703617),
    "std": (0.211883, 0.230117, 0.177517),
}
HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Backbone:
    """A pathology encoder on the hub of Hugging Face, and the architecture of timm that its weights fit."""

    hub_id: str
    width: int
    license: str
    gated: bool
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"init_values": 1e-5})
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    image_size: int = 224
    um_per_px: float = 0.5
    scale: str = "stated"  # by its makers, or "20x" for 0.5 um by custom, or "assumed" where they state nothing
    note: str = ""


UNI2_H = {
    "patch_size": 14,
    "embed_dim": 1536,
    "depth": 24,
    "num_heads": 24,
    "mlp_ratio": 16 / 3,
    "reg_tokens": 8,
}
VIRCHOW2 = {"init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, **SWIGLU}
GIGAPATH = {"patch_size": 16, "init_values": 1e-5}
BACKBONES = {
    "UNI": Backbone(
        "MahmoodLab/UNI", 1024, "CC-BY-NC-ND-4.0", True, "vit_large_patch16_224", scale="20x"
    ),
    "UNI2-h": Backbone(
        "MahmoodLab/UNI2-h",
        1536,
        "CC-BY-NC-ND-4.0",
        True,
        "vit_giant_patch14_224",
        {**UNI2_H, "init_values": 1e-5, "no_embed_class": True, **SWIGLU},
        scale="assumed",
    ),
    "Virchow2": Backbone(
        "paige-ai/Virchow2",
        1280,
        "CC-BY-NC-ND-4.0",
        True,
        "vit_huge_patch14_224",
        VIRCHOW2,
        note="trained at 0.25 to 2 um per pixel; its makers add the mean of the patch tokens to these features",
    ),
    "H-optimus-0": Backbone(
        "bioptimus/H-optimus-0",
        1536,
        "Apache-2.0",
        True,
        "vit_giant_patch14_reg4_dinov2",
        **HOPTIMUS,
    ),
    "H-optimus-1": Backbone(
        "bioptimus/H-optimus-1",
        1536,
        "CC-BY-NC-ND-4.0",
        True,
        "vit_giant_patch14_reg4_dinov2",
        **HOPTIMUS,
    ),
    "GigaPath": Backbone(
        "prov-gigapath/prov-gigapath",
        1536,
        "Apache-2.0",
        True,
        "vit_giant_patch14_dinov2",
        GIGAPATH,
        note="its card allows research only, no deployment; 256 px at 0.5 um are cut to the middle 224",
    ),
    "Phikon-v2": Backbone(
        "owkin/phikon-v2",
        1024,
        "Owkin non-commercial",
        False,
        "vit_large_patch16_224",
        note="a licence of its own, LICENSE.pdf on the hub",
    ),
    "Midnight-12k": Backbone(
        "kaiko-ai/midnight",
        1536,
        "MIT",
        False,
        "vit_giant_patch14_dinov2",
        **HALF,
        note="trained at 0.25 to 2 um per pixel; its makers add the mean of the patch tokens to these features",
    ),
}


def backbones() -> "pd.DataFrame":
    """List pathology encoders that :func:`stp.models.load_backbone` knows.

    Returns
    -------
    A row per encoder: hub id, width of its features (the class token), pixels and um per pixel of its input, where
    this scale is from ("stated" by its makers, "20x" where they state a magnification, "assumed" where they state
    nothing), mean and standard deviation of its normalization, licence, whether the hub asks to accept terms before
    it gives the weights, and a note. Licences and terms change; read them on the hub before use.

    Examples
    --------
    >>> stp.models.backbones().loc["Midnight-12k", "license"]
    'MIT'
    """
    import pandas as pd

    shown = (
        "hub_id",
        "width",
        "image_size",
        "um_per_px",
        "scale",
        "mean",
        "std",
        "license",
        "gated",
        "note",
    )
    rows = {name: {key: getattr(one, key) for key in shown} for name, one in BACKBONES.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def load_backbone(name: str, *, path: str | Path | None = None) -> ImageEncoder:
    """Load a pathology encoder as an ImageEncoder with its own normalization and input scale.

    Parameters
    ----------
    name
        One of :func:`stp.models.backbones`.
    path
        A local file of its weights, safetensors or PyTorch. Left out, they come from the hub, or from its cache on
        this machine, which is enough without a network.

    Returns
    -------
    The encoder on the CPU; its prompt token and reference projection are not trained yet.

    Raises
    ------
    ValueError
        The name is not known, or the file does not hold these weights.
    FileNotFoundError
        There is no such file; or neither the hub nor its cache gives the weights.
    PermissionError
        The hub refuses the weights: its terms are to be accepted first.

    Examples
    --------
    >>> stp.models.load_backbone("Midnight-12k", path="nowhere.safetensors")  # with a file of yours
    Traceback (most recent call last):
    FileNotFoundError: no weights at nowhere.safetensors
    """
    if name not in BACKBONES:
        raise ValueError(
            f"no backbone {name!r}; choose from {list(BACKBONES)}, or give ImageEncoderConfig any of timm's"
        )
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    one = BACKBONES[name]
    instead = f"download {' or '.join(WEIGHTS)} of {HUB}/{one.hub_id} ({one.license}) and give it as path="
    file = Path(path) if path is not None else fetch(one.hub_id, WEIGHTS, instead=instead)
    scale: dict[str, Any] = {
        "image_size": one.image_size,
        "um_per_px": one.um_per_px,
        "mean": one.mean,
        "std": one.std,
    }
    weights = _renamed(read(file))
    encoder = ImageEncoder(ImageEncoderConfig(one.architecture, one.arguments, **scale))
    ours, theirs = (
        {key: tuple(x.shape) for key, x in of.items()}
        for of in (encoder.backbone.state_dict(), weights)
    )
    check_shapes(theirs, ours, file, name)
    encoder.backbone.load_state_dict(weights)
    encoder.name = name
    return encoder.eval()


PARTS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "layernorm": "norm",
}


def _renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give weights of transformers' Dinov2 the names of timm; those of timm stay as they are."""
    if "embeddings.cls_token" not in weights:
        return weights
    renamed = {}
    for name, tensor in weights.items():
        for old, new in PARTS.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    renamed.pop("embeddings.mask_token", None)
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [
            renamed.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")
        ]
        renamed[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return renamed
