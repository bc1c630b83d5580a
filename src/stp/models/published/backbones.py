"""Pathology encoders that others trained: where their weights are, and how to load them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stp.models.image import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, ImageEncoderConfig
from stp.models.saved.hub import HUB, fetch
from stp.models.saved.weights import check_shapes, read_tensors

if TYPE_CHECKING:
    import pandas as pd

HOPTIMUS_MEAN = (0.707223, 0.578729, 0.703617)
HOPTIMUS_STD = (0.211883, 0.230117, 0.177517)
HALF = (0.5, 0.5, 0.5)
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
PATCH_MEAN_NOTE = (
    "trained at 0.25 to 2 µm per pixel; its authors append the mean of the patch tokens "
    "to these features"
)


@dataclass(frozen=True)
class Backbone:
    """A pathology encoder on the hub of Hugging Face, and how timm builds it."""

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
    # "stated" by its authors; "20x" if they state this magnification, which is 0.5 µm by custom;
    # "assumed" if they state nothing.
    scale: str = "stated"
    note: str = ""


BACKBONES = {
    "UNI": Backbone(
        hub_id="MahmoodLab/UNI",
        width=1024,
        license="CC-BY-NC-ND-4.0",
        gated=True,
        architecture="vit_large_patch16_224",
        scale="20x",
    ),
    "UNI2-h": Backbone(
        hub_id="MahmoodLab/UNI2-h",
        width=1536,
        license="CC-BY-NC-ND-4.0",
        gated=True,
        architecture="vit_giant_patch14_224",
        arguments={
            "patch_size": 14,
            "embed_dim": 1536,
            "depth": 24,
            "num_heads": 24,
            "mlp_ratio": 16 / 3,
            "reg_tokens": 8,
            "init_values": 1e-5,
            "no_embed_class": True,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "silu",
        },
        scale="assumed",
    ),
    "Virchow2": Backbone(
        hub_id="paige-ai/Virchow2",
        width=1280,
        license="CC-BY-NC-ND-4.0",
        gated=True,
        architecture="vit_huge_patch14_224",
        arguments={
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "silu",
        },
        note=PATCH_MEAN_NOTE,
    ),
    "H-optimus-0": Backbone(
        hub_id="bioptimus/H-optimus-0",
        width=1536,
        license="Apache-2.0",
        gated=True,
        architecture="vit_giant_patch14_reg4_dinov2",
        mean=HOPTIMUS_MEAN,
        std=HOPTIMUS_STD,
    ),
    "H-optimus-1": Backbone(
        hub_id="bioptimus/H-optimus-1",
        width=1536,
        license="CC-BY-NC-ND-4.0",
        gated=True,
        architecture="vit_giant_patch14_reg4_dinov2",
        mean=HOPTIMUS_MEAN,
        std=HOPTIMUS_STD,
    ),
    "GigaPath": Backbone(
        hub_id="prov-gigapath/prov-gigapath",
        width=1536,
        license="Apache-2.0",
        gated=True,
        architecture="vit_giant_patch14_dinov2",
        arguments={"patch_size": 16, "init_values": 1e-5},
        note="its card allows research only, no deployment; its authors crop patches of 256 px "
        "at 0.5 µm to the middle 224 px",
    ),
    "Phikon-v2": Backbone(
        hub_id="owkin/phikon-v2",
        width=1024,
        license="Owkin non-commercial",
        gated=False,
        architecture="vit_large_patch16_224",
        note="its license is LICENSE.pdf on the hub",
    ),
    "Midnight-12k": Backbone(
        hub_id="kaiko-ai/midnight",
        width=1536,
        license="MIT",
        gated=False,
        architecture="vit_giant_patch14_dinov2",
        mean=HALF,
        std=HALF,
        note=PATCH_MEAN_NOTE,
    ),
}
COLUMNS = (
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


def backbones() -> "pd.DataFrame":
    """List the pathology encoders that :func:`stp.models.load_backbone` knows.

    Licenses and terms change; read them on the hub before you use an encoder.

    Returns
    -------
    A table with one row per encoder. `hub_id` is its id on the hub of Hugging Face, and `width`
    the width of its features (the class token). Its input has `image_size` pixels per side and
    `um_per_px` µm per pixel. `scale` is "stated" if its authors state this scale, "20x" if they
    state only a magnification, and "assumed" if they state nothing. `mean` and `std` normalize
    the channels. If `gated` is true, users accept terms on the hub before they can download the
    weights. `license` and `note` are text.

    Examples
    --------
    >>> stp.models.backbones().loc["Midnight-12k", "license"]
    'MIT'
    """
    import pandas as pd

    rows = {
        name: {column: getattr(backbone, column) for column in COLUMNS}
        for name, backbone in BACKBONES.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def load_backbone(name: str, *, path: str | Path | None = None) -> ImageEncoder:
    """Load a pathology encoder as an ImageEncoder with its normalization and input scale.

    Parameters
    ----------
    name
        Name of an encoder in :func:`stp.models.backbones`.
    path
        Local file of the weights, safetensors or PyTorch. By default they come from the hub, or
        from its cache on this machine, which needs no network.

    Returns
    -------
    The encoder on the CPU. Its prompt token and its projection of patch tokens are not trained
    yet.

    Raises
    ------
    ValueError
        If the name is unknown, or the file does not contain these weights.
    FileNotFoundError
        If the file does not exist, or neither the hub nor its cache has the weights.
    PermissionError
        If the user has to accept the terms of the weights on the hub first.

    Examples
    --------
    >>> stp.models.load_backbone("Midnight-12k", path="nowhere.safetensors")  # with a file of yours
    Traceback (most recent call last):
    FileNotFoundError: no weights at nowhere.safetensors
    """
    if name not in BACKBONES:
        raise ValueError(
            f"no backbone {name!r}; choose from {list(BACKBONES)}, "
            "or give the name of a model of timm to ImageEncoderConfig"
        )
    backbone = BACKBONES[name]
    file = _find_weights(backbone, path)
    weights = _to_timm_names(read_tensors(file))
    config = ImageEncoderConfig(
        backbone.architecture,
        backbone.arguments,
        image_size=backbone.image_size,
        um_per_px=backbone.um_per_px,
        mean=backbone.mean,
        std=backbone.std,
    )
    encoder = ImageEncoder(config)
    expected = {key: tuple(x.shape) for key, x in encoder.backbone.state_dict().items()}
    actual = {key: tuple(x.shape) for key, x in weights.items()}
    check_shapes(actual, expected, file, name)
    encoder.backbone.load_state_dict(weights)
    encoder.name = name
    return encoder.eval()


def _find_weights(backbone: Backbone, path: str | Path | None) -> Path:
    """Return the given file of weights, or the one of the hub."""
    if path is None:
        page = f"{HUB}/{backbone.hub_id} ({backbone.license})"
        remedy = f"download {' or '.join(WEIGHT_FILES)} from {page} and give it as path="
        return fetch(backbone.hub_id, WEIGHT_FILES, remedy=remedy)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    return Path(path)


# Parts of the names in transformers' Dinov2, and in timm.
TIMM_NAMES = {
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


def _to_timm_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of transformers' Dinov2 as in timm; weights of timm stay as they are."""
    if "embeddings.cls_token" not in weights:
        return weights
    renamed = {}
    for name, tensor in weights.items():
        for old, new in TIMM_NAMES.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    renamed.pop("embeddings.mask_token", None)
    queries = [name for name in renamed if ".attention.attention.query." in name]
    for query in queries:
        # timm has one matrix for queries, keys and values.
        parts = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        merged = torch.cat([renamed.pop(part) for part in parts])
        renamed[query.replace("attention.attention.query", "attn.qkv")] = merged
    return renamed
