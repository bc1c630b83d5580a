"""The regression head: expression from frozen features (paper, section A.3.3)."""

from dataclasses import dataclass

import torch
from torch import nn

from stp.models.saved.pretrained import Pretrained


@dataclass(frozen=True)
class ExpressionHeadConfig:
    """What a head reads and what it predicts.

    Parameters
    ----------
    width
        Of the features.
    genes, units
        Names of what it predicts, and in which units.
    features_of
        Digest of the model that made the features, where it is known.

    Examples
    --------
    >>> stp.models.ExpressionHeadConfig(128, ("ERBB2",), "log1p of counts per 10,000").width
    128
    """

    width: int
    genes: tuple[str, ...]
    units: str
    features_of: str | None = None


class ExpressionHead(Pretrained):
    """Three linear layers with ReLU between them: width, twice the width, width, genes.

    Examples
    --------
    >>> config = stp.models.ExpressionHeadConfig(128, ("ERBB2",), "log1p of counts per 10,000")
    >>> len(stp.models.ExpressionHead(config).layers)
    5
    """

    config_class = ExpressionHeadConfig
    reads_genes = False

    def __init__(self, config: ExpressionHeadConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Linear(width, len(config.genes)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Predict from features (n, width): (n, n_genes)."""
        return self.layers(features)
