"""The regression head: expression from frozen features (paper, section A.3.3)."""

from dataclasses import dataclass

import torch
from torch import nn

from stp.models.saved.pretrained import Pretrained


@dataclass(frozen=True)
class ExpressionHeadConfig:
    """Input and output of an ExpressionHead.

    Parameters
    ----------
    width
        Width of the features.
    genes
        Names of the predicted genes.
    units
        Units of the predictions, in words.
    features_of
        Digest of the model that made the features, if it is known.

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
    """Predict expression from features by three linear layers with ReLU between them.

    The first layer doubles the width, the second restores it, and the third has an output per gene.

    Parameters
    ----------
    config
        Width of the features, and the predicted genes.

    Examples
    --------
    >>> config = stp.models.ExpressionHeadConfig(128, ("ERBB2",), "log1p of counts per 10,000")
    >>> len(stp.models.ExpressionHead(config).layers)
    5
    """

    config_class = ExpressionHeadConfig
    reads_genes = False
    config: ExpressionHeadConfig

    def __init__(self, config: ExpressionHeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Linear(width, len(config.genes)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the predictions (n, n_genes) for features (n, width)."""
        return self.layers(features)
