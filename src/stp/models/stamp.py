"""Stamp: a gene encoder and an image encoder joined by four projections (paper, section 3.3)."""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from stp.models.checkpoint import Pretrained
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.image import ImageEncoder, ImageEncoderConfig
from stp.vocabulary import Vocabulary

MAX_SCALE = 100.0


@dataclass(frozen=True)
class StampConfig:
    """Both encoders and the width of the space in which they meet."""

    gene: GeneEncoderConfig = field(default_factory=GeneEncoderConfig)
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    projection_width: int = 512


class Stamp(Pretrained, nn.Module):
    """Genes and images of a spot in one space.

    Parameters
    ----------
    config
        Its size.
    vocabulary
        The genes that tokens stand for.
    """

    config_class = StampConfig

    def __init__(self, config: StampConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.gene_encoder = GeneEncoder(config.gene, vocabulary)
        self.image_encoder = ImageEncoder(config.image)
        self.config = replace(config, image=self.image_encoder.config)
        width, genes, images = config.projection_width, self.gene_encoder.width, self.image_encoder.width
        self.gene_projection = nn.Linear(genes, width)
        self.patch_projection = nn.Linear(images, width)
        self.region_projection = nn.Linear(images, width)
        self.localization_projection = nn.Linear(images, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def vocabulary(self) -> Vocabulary:
        """The genes that tokens stand for."""
        return self.gene_encoder.vocabulary

    @property
    def scale(self) -> torch.Tensor:
        """The learned factor of all cosines, at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_SCALE)

    def encode_genes(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode tokens (n, length): features (n, width) and aligned unit vectors (n, projection_width).

        Features (n, width) in place of tokens are only aligned.
        """
        features = tokens if tokens.is_floating_point() else self.gene_encoder(tokens)
        return features, F.normalize(self.gene_projection(features), dim=-1)

    def encode_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode patches (n, size, size, 3) uint8: features (n, width) and aligned unit vectors."""
        features = self.image_encoder(images)
        return features, F.normalize(self.patch_projection(features), dim=-1)
