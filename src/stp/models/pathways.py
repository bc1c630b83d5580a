"""PathwayEncoder: scores of gene sets, standardized on the spots that a model was trained on."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn


class PathwayEncoder(nn.Module):
    """Gene sets, with the mean and deviation of their scores; nothing in it is learned.

    Parameters
    ----------
    sizes
        Name of each set, and how many genes it has.

    Attributes
    ----------
    genes : (sum of sizes,) int64
        Vocabulary indices, set by set.
    mean, deviation : (n_sets,) float32
        Of the scores of the training spots.
    """

    genes: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.register_buffer("genes", torch.zeros(sum(self.sizes.values()), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("deviation", torch.ones(self.width))

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """Vocabulary indices of the genes of each set."""
        ends = np.cumsum(list(self.sizes.values()))[:-1]
        return dict(zip(self.sizes, np.split(self.genes.cpu().numpy(), ends), strict=True))

    @property
    def width(self) -> int:
        """Number of sets."""
        return len(self.sizes)

    def fit(self, genes: Iterable[np.ndarray], scores: Iterable[np.ndarray]) -> None:
        """Take the genes of each set, and mean and deviation of blocks of scores (n, n_sets), NaN left out."""
        sums = np.zeros((3, self.width))
        for block in scores:
            known, values = np.isfinite(block), np.nan_to_num(block.astype(np.float64))
            sums += known.sum(0), values.sum(0), (values**2).sum(0)
        n = sums[0].clip(1)
        mean = sums[1] / n
        deviation = np.sqrt((sums[2] / n - mean**2).clip(0))
        self.genes.copy_(torch.from_numpy(np.concatenate(list(genes))))
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Standardize scores (n, n_sets); a set that is not measured gets 0, the mean."""
        return ((scores - self.mean) / self.deviation).nan_to_num(0)
