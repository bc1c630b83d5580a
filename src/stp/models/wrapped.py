"""WrappedEncoder: any torch module as an image encoder."""

from dataclasses import dataclass

import torch
from torch import nn

from stp._config import require_positive
from stp.models.image_config import IMAGENET_MEAN, IMAGENET_STD
from stp.models.patch_encoder import PatchEncoder, check_images, normalize
from stp.models.saved.digest import digest


@dataclass(frozen=True)
class WrappedEncoderConfig:
    """What a WrappedEncoder knows about its module.

    Parameters
    ----------
    name
        Name of the model, which is stored with its embeddings.
    width
        Width of the features.
    image_size
        Number of pixels per side of a patch.
    um_per_px
        µm per pixel of a patch.
    mean
        Mean of each channel, between 0 and 1, in the order in which the backbone reads them.
    std
        Standard deviation of each channel, in the same order as `mean`.

    Examples
    --------
    >>> from stp.models.wrapped import WrappedEncoderConfig
    >>> WrappedEncoderConfig("resnet", width=512, image_size=224, um_per_px=0.5).width
    512
    """

    name: str
    width: int
    image_size: int
    um_per_px: float
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty; it is stored with the embeddings")
        require_positive(self, "width", "image_size", "um_per_px")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(
                f"mean {self.mean} and std {self.std} must have one value per channel, red, green "
                "and blue, and std must be positive"
            )


class WrappedEncoder(PatchEncoder):
    """Embed patches with any torch module: a CNN, or a model of another package.

    It works wherever an ImageEncoder embeds. The order of channels is red, green and blue; the
    default `mean` and `std` are those of ImageNet. It cannot be aligned: alignment gives a vision
    transformer a further token, and other modules take none.

    Parameters
    ----------
    module
        Module that turns normalized patches (n, 3, size, size) into features (n, width). Its
        weights are not changed.
    width
        Width of the features.
    image_size
        Number of pixels per side of a patch.
    um_per_px
        µm per pixel of a patch.
    mean
        Mean of each channel, between 0 and 1, in the order in which the backbone reads them.
    std
        Standard deviation of each channel, in the same order as `mean`.
    name
        Name of the model, which is stored with its embeddings.

    Raises
    ------
    ValueError
        If a size is not positive, or the module has no weights.

    Examples
    --------
    >>> import timm
    >>> resnet = timm.create_model("resnet18", num_classes=0)
    >>> encoder = stp.models.WrappedEncoder(
    ...     resnet, width=512, image_size=64, um_per_px=2.0, name="an untrained ResNet-18"
    ... )
    >>> stp.tl.embed_images(sdata, encoder, key_added="X_resnet")
    >>> sdata.tables["table"].obsm["X_resnet"].shape[1]
    512
    """

    config: WrappedEncoderConfig
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        width: int,
        image_size: int,
        um_per_px: float,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        name: str,
    ) -> None:
        super().__init__()
        self.config = WrappedEncoderConfig(
            name, width, image_size, um_per_px, tuple(mean), tuple(std)
        )
        if next(module.parameters(), None) is None:
            raise ValueError(f"{name} has no weights; wrap a torch module with parameters")
        self.name = name
        self.module = module.eval()
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the weights of the module, its name and the normalization.

        The code of the module does not count. Give modules with the same weights and other code
        different names.
        """
        return digest(type(self).__name__, self.config, None, self.module.state_dict())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (n, width) of patches (n, size, size, 3) uint8."""
        check_images(images, self.config.image_size)
        pixels = normalize(images.permute(0, 3, 1, 2).float(), self.mean, self.std)
        features = self.module(pixels)
        if not isinstance(features, torch.Tensor):
            raise TypeError(
                f"the module of {self.name} returned {type(features).__name__}, not a tensor; "
                "wrap a module whose forward returns the features (n, width)"
            )
        if features.shape != (len(images), self.width):
            raise ValueError(
                f"the module of {self.name} returned shape {tuple(features.shape)}, not "
                f"({len(images)}, {self.width}); pool its outputs, or correct width"
            )
        return features
