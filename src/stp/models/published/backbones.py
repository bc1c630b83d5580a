"""Pathology encoders that others trained: a table of them, and how to load them."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import logger
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.published.backbone import Backbone
from stp.models.published.commercial import COMMERCIAL
from stp.models.published.noncommercial import NONCOMMERCIAL
from stp.models.published.unfit import UNFIT
from stp.models.published.weight_names import fit_positions, to_timm_names
from stp.models.saved.card import ModelCard
from stp.models.saved.hub import HUB, commit_of, fetch
from stp.models.saved.weights import check_shapes, leave_heads, read_tensors, strip_prefixes

if TYPE_CHECKING:
    import pandas as pd

BACKBONES: dict[str, Backbone] = NONCOMMERCIAL | COMMERCIAL
# How timm builds them, and on which files they are, is for the code.
HIDDEN = ("files", "architecture", "arguments", "positions", "pooled_width")


def backbones() -> "pd.DataFrame":
    """List the pathology encoders that :func:`stp.models.load_backbone` knows.

    Licenses and terms change; read them on the hub before you use an encoder.

    Returns
    -------
    A table with one row per encoder. `hub_id` is its id on the hub of Hugging Face, and
    `revision` the commit that is loaded; if it is empty, the latest one is. `width` is the width
    of its features, and `pooling` says which outputs they are: "class" (the class token),
    "class+mean" (the class token and the mean of the patch tokens) or "attention". Its input has
    `image_size` pixels per side and `um_per_px` µm per pixel. `scale` is "stated" if its authors
    state this scale, "20x" if sources state only a magnification, and "assumed" if they state
    nothing. `mean` and `std` normalize the channels. `resizing` is the interpolation with which
    its authors resize other patches; this package cuts patches at their final size. If `gated` is
    true, users accept terms on the hub before they can download the weights. If `commercial` is
    true, the terms allow commercial use. `license`, `citation` and `note` are text, and `sources`
    names where the facts were read.

    Examples
    --------
    >>> stp.models.backbones().loc["Midnight-12k", "license"]
    'MIT'
    """
    import pandas as pd

    columns = [field.name for field in fields(Backbone) if field.name not in HIDDEN]
    rows = {
        name: {column: getattr(backbone, column) for column in columns}
        for name, backbone in BACKBONES.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def load_backbone(
    name: str | ImageEncoderConfig, *, path: str | Path | None = None
) -> ImageEncoder:
    """Load a pathology encoder that gives the features of its authors, and only those.

    It has their pooling, normalization and input scale, and no prompt token.

    Parameters
    ----------
    name
        Name of an encoder in :func:`stp.models.backbones`; or a config, which describes any other
        vision transformer, with `path`.
    path
        Local file of the weights, safetensors or PyTorch. By default they come from the hub, or
        from its cache on this machine, which needs no network.

    Returns
    -------
    The encoder on the CPU. Its card has its license and terms, and the commit of the weights.

    Raises
    ------
    ValueError
        If the name is unknown, a config has no `path`, or the file does not contain these weights.
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
    if isinstance(name, ImageEncoderConfig):
        if path is None:
            raise ValueError(
                f"a config of {name.backbone!r} needs path=, a file of its weights; or build "
                "ImageEncoder(config), with pretrained=True for the weights that timm publishes"
            )
        file = _existing(path)
        config = replace(name, has_prompt=False, pretrained=False)
        encoder = _load(config, file, title=name.backbone, interpolation="")
        encoder.name = file.stem
        return encoder
    backbone = _find(name)
    file = _find_weights(backbone, path)
    encoder = _load(backbone.config, file, title=name, interpolation=backbone.positions)
    encoder.name = name
    origin = f"the file {file.name}"
    if path is None:
        origin = f"{backbone.hub_id} at commit {commit_of(file)}"
    encoder.card = ModelCard(
        trained_on=(f"weights of {name} by its authors, from {origin}",),
        license=backbone.license,
        terms=(backbone.terms,),
    )
    return encoder


def _find(name: str) -> Backbone:
    """Return what is known about a backbone, or raise ValueError with what to do instead."""
    if name in UNFIT:
        raise ValueError(
            f"{name} cannot be loaded by its name: {UNFIT[name]}; load it with the code of its "
            "authors and wrap it in stp.models.WrappedEncoder"
        )
    if name not in BACKBONES:
        raise ValueError(
            f"no backbone {name!r}; choose from {list(BACKBONES)}, "
            "or give the name of a model of timm to ImageEncoderConfig"
        )
    return BACKBONES[name]


def _find_weights(backbone: Backbone, path: str | Path | None) -> Path:
    """Return the given file of weights, or the one of the hub."""
    if path is not None:
        return _existing(path)
    page = f"{HUB}/{backbone.hub_id} ({backbone.license})"
    remedy = f"download {' or '.join(backbone.files)} from {page} and give it as path="
    revision = backbone.revision or None
    return fetch(backbone.hub_id, backbone.files, revision=revision, remedy=remedy)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    return Path(path)


def _load(
    config: ImageEncoderConfig, file: Path, *, title: str, interpolation: str
) -> ImageEncoder:
    """Build an encoder without a prompt and load the weights of a file."""
    weights = to_timm_names(strip_prefixes(read_tensors(file), file))
    encoder = ImageEncoder(config)
    vit = encoder.backbone
    state = encoder.state_dict()
    names = {name.removeprefix("backbone."): name for name in state}
    n_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    n_positions = weights["pos_embed"].shape[1] if "pos_embed" in weights else 0
    weights = fit_positions(weights, vit.pos_embed, n_prefix, interpolation)
    weights = leave_heads(weights, names, file)
    expected = {short: tuple(state[name].shape) for short, name in names.items()}
    actual = {short: tuple(tensor.shape) for short, tensor in weights.items()}
    check_shapes(actual, expected, file, title)
    if abs(n_positions - vit.pos_embed.shape[1]) > 1:
        logger.info(
            f"{file.name}: resized {n_positions} position embeddings to the "
            f"{vit.pos_embed.shape[1]} of images of {config.image_size} px."
        )
    encoder.load_state_dict({names[short]: tensor for short, tensor in weights.items()})
    return encoder.eval()
