"""GeneEncoder: a transformer over the ranked genes of a spot (paper, section 3.2 and table 3)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from stp._keys import PAD, PAD_ID
from stp.models.checkpoint import Pretrained
from stp.vocabulary import Vocabulary

UNUSED_ROWS = 5  # the released embedding has five rows more than there are tokens


@dataclass(frozen=True)
class GeneEncoderConfig:
    """Size and arithmetic of a GeneEncoder; the defaults are the paper's (table 3).

    Parameters
    ----------
    context_length
        Genes seen per spot, the highest ranks.
    width, depth, n_heads, ffn_width
        Width of tokens and features, number of blocks, attention heads, width inside the feed-forward part.
    pooling
        "mean" over the real tokens, or "reference": positions 4 to the last, padding included, as the released
        weights need.
    tie_heads
        Predict genes with the token embedding instead of a matrix of their own; off for released weights.
    """

    context_length: int = 1500
    width: int = 512
    depth: int = 12
    n_heads: int = 16
    ffn_width: int = 1024
    pooling: str = "mean"
    tie_heads: bool = True

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "reference"):
            raise ValueError(f"pooling must be 'mean' or 'reference', not {self.pooling!r}")
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} must be a multiple of n_heads {self.n_heads}")


class GeneEncoder(Pretrained, nn.Module):
    """Encode ranked genes; parameter names are those of the released weights.

    Parameters
    ----------
    config
        Its size.
    vocabulary
        The genes that tokens stand for.
    """

    config_class = GeneEncoderConfig

    def __init__(self, config: GeneEncoderConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        n_tokens = vocabulary.n_tokens
        self.embeddings = nn.Embedding(n_tokens + UNUSED_ROWS, config.width)
        self.positional_embedding = nn.Embedding(config.context_length, config.width)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Block(config) for _ in range(config.depth))})
        self.classifier_head = TokenHead(config.width, n_tokens, config.tie_heads)
        self.spatial_classifier_head = TokenHead(config.width, n_tokens, config.tie_heads)
        # Small embeddings keep the first predictions near the head's bias, which pretraining starts at log frequencies.
        nn.init.normal_(self.embeddings.weight, std=0.02)
        nn.init.normal_(self.positional_embedding.weight, std=0.02)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode tokens as `tl.tokenize` writes them.

        Parameters
        ----------
        tokens
            (n, length) integers, padded with 0; ranks beyond `context_length` are not read.

        Returns
        -------
        (n, width) features.
        """
        ids = to_model_ids(tokens[:, : self.config.context_length])
        if self.config.pooling == "mean":
            ids = ids[:, : max(1, int((ids != PAD_ID).sum(1).max()))]  # (n, longest)
        else:  # padding counts
            ids = F.pad(ids, (0, self.config.context_length - ids.shape[1]), value=PAD_ID)
        return self.pool(self.hidden(ids), ids != PAD_ID)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the last block's outputs (n, length, width) for model ids (n, length); padding is not attended."""
        real = ids != PAD_ID
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.embeddings(ids) + self.positional_embedding(positions)
        mask = None if bool(real.all()) else real[:, None, None, :]  # (n, 1, 1, length)
        for block in self.encoder["layers"]:
            x = block(x, mask)
        return x

    def pool(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Average outputs (n, length, width) as the config says; `real` (n, length) is False at padding."""
        if self.config.pooling == "reference":
            return hidden[:, 3:].mean(1)
        weight = real[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score every token for the outputs (m, width) of masked positions: logits (m, n_tokens)."""
        return self.classifier_head(outputs, self.embeddings.weight)

    def predict_from_context(self, context: torch.Tensor) -> torch.Tensor:
        """Score every token from the context (m, width) of a spot's neighbors: logits (m, n_tokens)."""
        return self.spatial_classifier_head(context, self.embeddings.weight)

    @torch.no_grad()
    def start_heads(self, log_frequency: torch.Tensor) -> None:
        """Start the bias of both heads at the log frequency (n_tokens,) of tokens, for training from scratch."""
        for head in (self.classifier_head, self.spatial_classifier_head):
            head.bias.copy_(log_frequency)


def to_model_ids(tokens: torch.Tensor) -> torch.Tensor:
    """Turn tokens as stored, padded with 0, into the model's ids, padded with 1."""
    ids = tokens.long()
    return torch.where(ids == PAD, PAD_ID, ids)


class Block(nn.Module):
    """Post-norm transformer block with the parameter names of `nn.TransformerEncoderLayer`."""

    def __init__(self, config: GeneEncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.width, config.n_heads)
        self.linear1 = nn.Linear(config.width, config.ffn_width)
        self.linear2 = nn.Linear(config.ffn_width, config.width)
        self.norm1 = nn.LayerNorm(config.width, eps=1e-12)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map (n, length, width) to the same shape."""
        x = self.norm1(x + self.self_attn(x, mask))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class SelfAttention(nn.Module):
    """Multi-head attention without a materialized attention matrix."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map (n, length, width) to the same shape."""
        n, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(n, length, 3, self.n_heads, -1).permute(
            2, 0, 3, 1, 4
        )  # each (n, heads, length, width / heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).reshape(n, length, width))


class TokenHead(nn.Module):
    """Score tokens with a matrix of its own, or with the embedding where tied."""

    def __init__(self, width: int, n_tokens: int, tied: bool) -> None:
        super().__init__()
        self.weight = None if tied else nn.Parameter(torch.empty(n_tokens, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_tokens))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return logits (m, n_tokens) for (m, width)."""
        return F.linear(x, embedding[: len(self.bias)] if self.weight is None else self.weight, self.bias)
