"""Stamp: encoders of genes or pathways, and of images, joined by projections (paper, section 3.3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.image import ImageEncoder, ImageEncoderConfig
from stp.models.pathways import PathwayEncoder
from stp.models.saved.pretrained import Pretrained

MAX_SCALE = 100.0


@dataclass(frozen=True)
class StampConfig:
    """Sizes of a Stamp.

    Parameters
    ----------
    gene, image
        The encoders; no gene encoder where images were aligned with pathways alone.
    projection_width
        Width of the space in which they meet.
    pathways
        Name of each gene set, and how many genes it has; none where images were aligned with genes alone.
    adapter_reduction
        Features over the width of the adapters that :func:`stp.train.adapt` adds; none without them.

    Examples
    --------
    >>> stp.models.StampConfig(projection_width=128).gene.width
    512
    """

    gene: GeneEncoderConfig | None = field(default_factory=GeneEncoderConfig)
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    projection_width: int = 512
    pathways: Mapping[str, int] | None = None
    adapter_reduction: int | None = None


class Adapter(nn.Module):
    """Adjust frozen features through a narrow layer (paper, A.3.3, after CLIP-Adapter); at first it changes nothing.

    Two linear layers without bias, a ReLU between them, added to the features.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Adjust features (n, width)."""
        return features + self.up(F.relu(self.down(features)))


class Stamp(Pretrained):
    """Genes or pathways, and images, of a spot in one space.

    Parameters
    ----------
    config
        Its size.
    vocabulary
        The genes that tokens and gene sets stand for.

    Examples
    --------
    >>> model = stp.models.Stamp.from_pretrained("demo/stamp")
    >>> model.config.projection_width, model.vocabulary.n_genes
    (64, 415)
    """

    config_class = StampConfig

    def __init__(self, config: StampConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.gene_encoder = genes = (
            None if config.gene is None else GeneEncoder(config.gene, vocabulary)
        )
        self.image_encoder = ImageEncoder(config.image)
        self.config = replace(config, image=self.image_encoder.config)
        width, images = config.projection_width, self.image_encoder.width
        self.gene_projection = None if genes is None else nn.Linear(genes.width, width)
        self.patch_projection = nn.Linear(images, width)
        self.region_projection = nn.Linear(images, width)
        self.localization_projection = nn.Linear(images, width)
        reduction = config.adapter_reduction
        self.gene_adapter = (
            Adapter(genes.width, reduction) if genes and reduction else nn.Identity()
        )
        self.patch_adapter = Adapter(images, reduction) if reduction else nn.Identity()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.pathway_encoder = PathwayEncoder(config.pathways) if config.pathways else None
        self.pathway_projection = (
            nn.Linear(len(config.pathways), width) if config.pathways else None
        )

    @property
    def scale(self) -> torch.Tensor:
        """The learned factor of all cosines, at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_SCALE)

    def encode_genes(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode tokens (n, length): features (n, width) and aligned unit vectors (n, projection_width).

        Features (n, width) in place of tokens are only aligned.
        """
        if self.gene_encoder is None or self.gene_projection is None:
            raise ValueError(
                "this Stamp was aligned with pathways alone and reads no tokens; use its pathways"
            )
        features = tokens if tokens.is_floating_point() else self.gene_encoder(tokens)
        return features, F.normalize(self.gene_projection(self.gene_adapter(features)), dim=-1)

    def encode_pathways(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode scores of gene sets (n, n_sets): standardized scores and aligned unit vectors."""
        if self.pathway_encoder is None or self.pathway_projection is None:
            raise ValueError(
                "this Stamp knows no pathways; align one with AlignConfig(targets='pathways' or 'both', gene_sets=...)"
            )
        features = self.pathway_encoder(scores)
        return features, F.normalize(self.pathway_projection(features), dim=-1)

    def encode_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode patches (n, size, size, 3) uint8: features (n, width) and aligned unit vectors.

        Features (n, width) in place of patches are only aligned.
        """
        features = images if images.ndim == 2 else self.image_encoder(images)
        return features, F.normalize(self.patch_projection(self.patch_adapter(features)), dim=-1)
