"""PathwayEncoder: scores of gene sets, standardized with the spots that a model was trained on."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn


class PathwayEncoder(nn.Module):
    """Standardize the scores of gene sets; it has no trained weights.

    Parameters
    ----------
    sizes
        Number of genes of each set, by the name of the set.

    Attributes
    ----------
    genes : (sum of sizes,) int64
        Vocabulary indices of the genes, set by set.
    mean : (n_sets,) float32
        Mean score of each set over the training spots.
    deviation : (n_sets,) float32
        Standard deviation of each score over the training spots.
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
        """Store the genes of each set, and the mean and standard deviation of its scores.

        Parameters
        ----------
        genes
            Vocabulary indices of the genes of each set.
        scores
            Blocks of scores (n, n_sets). NaN is ignored.
        """
        n_finite = np.zeros(self.width)
        total = np.zeros(self.width)
        total_of_squares = np.zeros(self.width)
        for block in scores:
            values = np.nan_to_num(block.astype(np.float64))
            n_finite += np.isfinite(block).sum(0)
            total += values.sum(0)
            total_of_squares += (values**2).sum(0)
        n = n_finite.clip(1)
        mean = total / n
        deviation = np.sqrt((total_of_squares / n - mean**2).clip(0))
        self.genes.copy_(torch.from_numpy(np.concatenate(list(genes))))
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Standardize scores (n, n_sets); a set that is not measured gets 0, the mean."""
        return ((scores - self.mean) / self.deviation).nan_to_num(0)
