"""Backbone: what is known about a pathology encoder that others trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stp.models.image_config import IMAGENET_MEAN, IMAGENET_STD, ImageEncoderConfig

LAYER_SCALE = {"init_values": 1e-5}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", **LAYER_SCALE}
HALF = (0.5, 0.5, 0.5)
HOPTIMUS_MEAN = (0.707223, 0.578729, 0.703617)
HOPTIMUS_STD = (0.211883, 0.230117, 0.177517)
HIBOU_MEAN = (0.7068, 0.5755, 0.722)
HIBOU_STD = (0.195, 0.2316, 0.1816)
LUNIT_MEAN = (0.70322989, 0.53606487, 0.66096631)
LUNIT_STD = (0.21716536, 0.26081574, 0.20723464)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pathology encoder on the hub of Hugging Face, and how timm builds it.

    Parameters
    ----------
    hub_id
        Id on the hub of Hugging Face.
    revision
        Commit on the hub that is loaded; empty if no source states one, then the latest.
    files
        Names that the file of weights may have on the hub, the preferred one first.
    width
        Width of the features that its authors publish.
    pooling
        Which outputs of the transformer are these features.
    pooled_width
        Width of the features of attention pooling; None for the other kinds of pooling.
    license
        License of the weights.
    gated
        Whether users accept terms on the hub before they can download the weights.
    commercial
        Whether the terms allow commercial use.
    architecture
        Name of a vision transformer in timm.
    arguments
        Further arguments of `timm.create_model`.
    mean, std
        Mean and standard deviation of the channels.
    image_size
        Number of pixels per side of a patch.
    um_per_px
        µm per pixel of a patch.
    scale
        "stated" by its authors; "20x" if sources state this magnification, which is 0.5 µm by
        custom; "assumed" if they state nothing.
    resizing
        Interpolation with which its authors resize patches of another size; empty if they state
        none. It is a fact for readers: patches are cut at the size and scale that is needed.
    positions
        How position embeddings of another grid are resized to that of `image_size`: "bicubic" or
        "antialiased bicubic"; empty if such weights are refused.
    sources
        Where these facts were read.
    citation
        DOI or arXiv id of the publication.
    note
        What else a user should know.
    """

    hub_id: str
    revision: str = ""
    files: tuple[str, ...] = WEIGHT_FILES
    width: int
    pooling: str = "class"
    pooled_width: int | None = None
    license: str
    gated: bool
    commercial: bool = False
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: LAYER_SCALE)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    image_size: int = 224
    um_per_px: float = 0.5
    scale: str
    resizing: str = ""
    positions: str = ""
    sources: tuple[str, ...]
    citation: str = ""
    note: str = ""

    @property
    def config(self) -> ImageEncoderConfig:
        """Config of an encoder that gives the features of its authors."""
        return ImageEncoderConfig(
            self.architecture,
            self.arguments,
            image_size=self.image_size,
            um_per_px=self.um_per_px,
            mean=self.mean,
            std=self.std,
            has_prompt=False,
            pooling=self.pooling,
            pooled_width=self.pooled_width,
        )

    @property
    def terms(self) -> str:
        """The terms of the license in a sentence or two."""
        allowed = "allow" if self.commercial else "forbid"
        note = f" {self.note[0].upper()}{self.note[1:]}." if self.note else ""
        return f"The terms {allowed} commercial use.{note}"
