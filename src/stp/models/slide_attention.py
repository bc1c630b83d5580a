"""Attention over tiles: the score of each tile, and what each tile has to do with a prediction."""

from typing import NamedTuple

import torch
from torch import nn

from stp.models.slide_config import N_HEADS

N_LAYERS = 2


class TileScores(NamedTuple):
    """What each tile has to do with a prediction.

    Parameters
    ----------
    logits
        Logits (n_bags, n_outputs) of all targets, one after another.
    attention
        Attention (n_tiles, n_targets); over a bag it sums to one.
    contributions
        Share of each tile in each logit (n_tiles, n_outputs). The sum over the tiles of a bag plus
        the bias is the logit.
    """

    logits: torch.Tensor
    attention: torch.Tensor
    contributions: torch.Tensor


class TileAttention(nn.Module):
    """The score of each tile: plain or gated attention (Ilse et al. 2018, eq. 8 and 9)."""

    def __init__(self, width: int, hidden: int, *, is_gated: bool) -> None:
        super().__init__()
        self.is_gated = is_gated
        self.project = nn.Linear(width, 2 * hidden if is_gated else hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias changes no softmax

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return a score per tile (n, 1) for tiles (n, width)."""
        projected = self.project(tiles)
        if not self.is_gated:
            return self.score(projected.tanh())
        values, gates = projected.chunk(2, dim=1)
        return self.score(values.tanh() * gates.sigmoid())


def weigh_tiles(hidden: torch.Tensor, weights: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return the weighted sums (n_bags, n_targets, hidden) of the tiles of each bag."""
    with torch.autocast(hidden.device.type, enabled=False):
        bags = zip(weights.split(sizes), hidden.float().split(sizes), strict=True)
        return torch.stack([weight.T @ bag for weight, bag in bags])


def make_transformer(width: int, dropout: float) -> nn.TransformerEncoder:
    """Return two layers of self-attention without positions, for tokens of this width."""
    layer = nn.TransformerEncoderLayer(
        width, N_HEADS, width, dropout, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, N_LAYERS, enable_nested_tensor=False)
