"""Pooling: how the outputs of a vision transformer become the features of a patch."""

import torch
from torch import nn

POOLINGS = ("class", "class+mean", "attention")
N_HEADS = 8  # of attention pooling, in CONCH


class AttentionPool(nn.Module):
    """Let a learned query attend to all outputs of a transformer (CONCH, after CoCa).

    Parameters
    ----------
    token_width
        Width of the outputs of the transformer.
    width
        Width of the features.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.query_norm = nn.LayerNorm(width)
        self.token_norm = nn.LayerNorm(token_width)
        self.attention = nn.MultiheadAttention(
            width, N_HEADS, kdim=token_width, vdim=token_width, batch_first=True
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return features (n, width) of outputs (n, length, token_width)."""
        keys = self.token_norm(tokens)
        query = self.query_norm(self.query).expand(len(tokens), -1, -1)
        pooled, _ = self.attention(query, keys, keys, need_weights=False)
        return self.norm(pooled[:, 0])


def class_and_mean(class_token: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the class token (n, width) followed by the mean of the tokens (n, length, width)."""
    return torch.cat([class_token, tokens.mean(1)], dim=-1)
