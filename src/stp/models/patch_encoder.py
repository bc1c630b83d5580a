"""PatchEncoder: what image encoders have in common, whatever network computes the features."""

from typing import ClassVar, Protocol

import torch
from torch import nn


class PatchInput(Protocol):
    """The part of a config that says which patches an encoder reads."""

    @property
    def image_size(self) -> int:
        """Number of pixels per side of a patch."""

    @property
    def um_per_px(self) -> float:
        """µm per pixel of a patch."""


class PatchEncoder(nn.Module):
    """A module that turns patches (n, size, size, 3) uint8 into features (n, width).

    Attributes
    ----------
    name
        Name of the model, which is stored with its embeddings.
    """

    reads_genes: ClassVar[bool] = False
    config: PatchInput
    name: str

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that decides the features."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Width of the features."""
        raise NotImplementedError


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return pixels (n, 3, size, size) between 0 and 255 as an encoder reads them.

    Parameters
    ----------
    images
        Pixels (n, 3, size, size), floats between 0 and 255.
    mean, std
        Mean and standard deviation of the channels (1, 3, 1, 1), between 0 and 1.
    """
    return (images / 255 - mean) / std


def check_images(images: torch.Tensor, size: int) -> None:
    """Raise ValueError if images are not patches (n, size, size, 3)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (size, size, 3):
        raise ValueError(
            f"images have shape {tuple(images.shape)}, and the encoder reads "
            f"(n, {size}, {size}, 3); cut patches of {size} pixels"
        )
