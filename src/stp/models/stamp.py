"""Stamp: encoders of genes or pathways and of images, with projections (paper, section 3.3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.pathways import PathwayEncoder
from stp.models.saved.pretrained import Pretrained

MAX_SCALE = 100.0


@dataclass(frozen=True)
class StampConfig:
    """Sizes of a Stamp.

    Parameters
    ----------
    gene
        Config of the gene encoder; None if images were aligned with pathways only.
    image
        Config of the image encoder.
    projection_width
        Width of the aligned vectors.
    pathways
        Number of genes of each gene set, by its name; None if images were aligned with genes only.
    adapter_reduction
        Width of the features divided by the width of the adapters that :func:`stp.train.adapt`
        adds; None without adapters.

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
    """Adjust frozen features through a narrow layer (paper, A.3.3, after CLIP-Adapter).

    The outputs of two linear layers without bias, with a ReLU between them, are added to the
    features. The second layer starts at zero, so an untrained adapter changes nothing.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the adjusted features (n, width)."""
        return features + self.up(F.relu(self.down(features)))


class Stamp(Pretrained):
    """Encode genes or pathways, and images, of spots as vectors that can be compared.

    Parameters
    ----------
    config
        Sizes of the encoders and projections.
    vocabulary
        The genes that tokens and gene sets stand for.

    Examples
    --------
    >>> model = stp.models.Stamp.from_pretrained("demo/stamp")
    >>> model.config.projection_width, model.vocabulary.n_genes
    (64, 415)
    """

    config_class = StampConfig
    config: StampConfig

    def __init__(self, config: StampConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        gene_encoder = None if config.gene is None else GeneEncoder(config.gene, vocabulary)
        if not config.image.has_prompt:
            raise ValueError("the image encoder of a Stamp needs its prompt: has_prompt=True")
        image_encoder = ImageEncoder(config.image)
        width = config.projection_width
        reduction = config.adapter_reduction
        self.config = replace(config, image=image_encoder.config)
        # The order decides which random numbers each layer starts with: it must stay.
        self.gene_encoder = gene_encoder
        self.image_encoder = image_encoder
        self.gene_projection = nn.Linear(gene_encoder.width, width) if gene_encoder else None
        self.patch_projection = nn.Linear(image_encoder.width, width)
        self.region_projection = nn.Linear(image_encoder.width, width)
        self.localization_projection = nn.Linear(image_encoder.token_width, width)
        self.gene_adapter = (
            _adapter(gene_encoder.width, reduction) if gene_encoder else nn.Identity()
        )
        self.patch_adapter = _adapter(image_encoder.width, reduction)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.pathway_encoder = None
        self.pathway_projection = None
        if config.pathways:
            self.pathway_encoder = PathwayEncoder(config.pathways)
            self.pathway_projection = nn.Linear(len(config.pathways), width)

    def _describe_parts(self) -> dict[str, str]:
        parts = {**super()._describe_parts(), "images": self.config.image.describe()}
        if self.config.pathways:
            parts["pathways"] = f"{len(self.config.pathways):,}"
        parts["features"] = f"images {self.image_encoder.width}"
        if self.gene_encoder is not None:
            parts["features"] = f"genes {self.gene_encoder.width}, {parts['features']}"
        return {**parts, "aligned": str(self.config.projection_width)}

    @property
    def scale(self) -> torch.Tensor:
        """The learned factor by which the losses multiply cosines, at most 100."""
        return self.logit_scale.exp().clamp(max=MAX_SCALE)

    def encode_genes(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (n, width) and aligned unit vectors (n, projection_width) of spots.

        Parameters
        ----------
        tokens
            Tokens (n, length), or features (n, width), which are only aligned.
        """
        if self.gene_encoder is None or self.gene_projection is None:
            raise ValueError(
                "this Stamp was aligned with pathways only and reads no tokens; use its pathways"
            )
        features = tokens if tokens.is_floating_point() else self.gene_encoder(tokens)
        return features, F.normalize(self.gene_projection(self.gene_adapter(features)), dim=-1)

    def encode_pathways(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardized scores and aligned unit vectors for gene set scores (n, n_sets)."""
        if self.pathway_encoder is None or self.pathway_projection is None:
            raise ValueError(
                "this Stamp has no pathways; align one with "
                "AlignConfig(targets='pathways' or 'both', gene_sets=...)"
            )
        features = self.pathway_encoder(scores)
        return features, F.normalize(self.pathway_projection(features), dim=-1)

    def encode_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (n, width) and aligned unit vectors (n, projection_width) of patches.

        Parameters
        ----------
        images
            Patches (n, size, size, 3) uint8, or features (n, width), which are only aligned.
        """
        features = images if images.ndim == 2 else self.image_encoder(images)
        return features, F.normalize(self.patch_projection(self.patch_adapter(features)), dim=-1)


def _adapter(width: int, reduction: int | None) -> nn.Module:
    return Adapter(width, reduction) if reduction else nn.Identity()
