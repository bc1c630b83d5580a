"""GeneEncoder: a transformer over the ranked genes of a spot (paper, section 3.2 and table 3)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from stp._config import require_positive
from stp.genes.special_tokens import PAD, PAD_ID
from stp.genes.vocabulary import Vocabulary
from stp.models.saved.pretrained import Pretrained

UNUSED_ROWS = 5  # the released embedding has five rows more than there are tokens
GPU_STEP = 64  # lengths of spots are rounded up to it


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

    Examples
    --------
    >>> stp.models.GeneEncoderConfig(width=128, depth=4, n_heads=8).context_length
    1500
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
        require_positive(self, "context_length", "width", "depth", "n_heads", "ffn_width")
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} must be a multiple of n_heads {self.n_heads}")


class GeneEncoder(Pretrained):
    """Encode ranked genes; parameter names are those of the released weights.

    Parameters
    ----------
    config
        Its size.
    vocabulary
        The genes that tokens stand for.

    Examples
    --------
    >>> config = stp.models.GeneEncoderConfig(
    ...     context_length=64, width=32, depth=2, n_heads=2, ffn_width=64
    ... )
    >>> encoder = stp.models.GeneEncoder(config, vocabulary)
    >>> stp.tl.tokenize(adata, encoder)
    >>> stp.tl.embed_genes(adata, encoder)
    """

    config_class = GeneEncoderConfig

    def __init__(self, config: GeneEncoderConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        n_tokens = vocabulary.n_tokens
        self.embeddings = nn.Embedding(n_tokens + UNUSED_ROWS, config.width)
        self.positional_embedding = nn.Embedding(config.context_length, config.width)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Block(config) for _ in range(config.depth))}
        )
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
        padding = self.config.pooling == "reference"
        if padding:
            ids = F.pad(ids, (0, self.config.context_length - ids.shape[1]), value=PAD_ID)
        return self.pool(self.hidden(ids, padding=padding), ids != PAD_ID)

    def hidden(self, ids: torch.Tensor, *, padding: bool = False) -> torch.Tensor:
        """Encode model ids (n, length), each row padded at its end, to the last block's outputs (n, length, width).

        Padding is not attended. Its outputs are 0, or computed like all others where `padding` is set.
        """
        (n, length), real = ids.shape, ids != PAD_ID
        # On a GPU few large products beat many exact ones, so lengths are rounded up.
        step = length if padding else 1 if ids.device.type == "cpu" else GPU_STEP
        places, groups = pack(real, step)
        x = self.embeddings(ids.flatten()[places]) + self.positional_embedding(
            places % length
        )  # (total, width)
        for block in self.encoder["layers"].children():
            x = block(x, groups)
        return (
            x.new_zeros(n * length, self.width).index_copy(0, places, x).view(n, length, self.width)
        )

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


class Group(NamedTuple):
    """Spots of one length that stand together in the stream of tokens."""

    n: int
    length: int
    mask: torch.Tensor | None  # (n, 1, 1, length) True at real tokens; None where all are


def pack(real: torch.Tensor, step: int) -> tuple[torch.Tensor, list[Group]]:
    """Lay the tokens of all spots in one stream, spots of one length together, so that padding is not computed.

    Parameters
    ----------
    real
        (n, length) bool, False at padding, which ends each row.
    step
        Lengths are rounded up to a multiple of it, and to no more than the whole.

    Returns
    -------
    Places of the stream's tokens (total,) in the flattened (n, length), and the groups in it.
    """
    n, width = real.shape
    lengths = (-(-real.sum(1).clamp_min(1) // step) * step).clamp_max(width)
    lengths, order = lengths.sort(stable=True)
    position = torch.arange(width, device=real.device)
    places = (order[:, None] * width + position)[position < lengths[:, None]]
    groups, start = [], 0
    for length, count in zip(
        *(part.tolist() for part in lengths.unique_consecutive(return_counts=True)), strict=True
    ):
        mask = real[order[start : start + count], None, None, :length]
        groups.append(Group(count, length, None if bool(mask.all()) else mask))
        start += count
    return places, groups


class Block(nn.Module):
    """Post-norm transformer block with the parameter names of `nn.TransformerEncoderLayer`."""

    def __init__(self, config: GeneEncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.width, config.n_heads)
        self.linear1 = nn.Linear(config.width, config.ffn_width)
        self.linear2 = nn.Linear(config.ffn_width, config.width)
        self.norm1 = nn.LayerNorm(config.width, eps=1e-12)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, x: torch.Tensor, groups: list[Group]) -> torch.Tensor:
        """Map a stream of tokens (total, width) to the same shape."""
        x = self.norm1(x + self.self_attn(x, groups))
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

    def forward(self, x: torch.Tensor, groups: list[Group]) -> torch.Tensor:
        """Map a stream of tokens (total, width) to the same shape; each attends to its own spot."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        parts = qkv.split([group.n * group.length for group in groups])
        return self.out_proj(
            torch.cat(
                [self._attend(part, group) for part, group in zip(parts, groups, strict=True)]
            )
        )

    def _attend(self, qkv: torch.Tensor, group: Group) -> torch.Tensor:
        """Map (n * length, 3 * width) of spots of one length to (n * length, width)."""
        split = qkv.view(group.n, group.length, 3, self.n_heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each (n, heads, length, width / heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
        return attended.transpose(1, 2).reshape(group.n * group.length, -1)


class TokenHead(nn.Module):
    """Score tokens with a matrix of its own, or with the embedding where tied."""

    def __init__(self, width: int, n_tokens: int, tied: bool) -> None:
        super().__init__()
        self.weight = (
            None
            if tied
            else nn.Parameter(torch.empty(n_tokens, width).uniform_(-(width**-0.5), width**-0.5))
        )
        self.bias = nn.Parameter(torch.zeros(n_tokens))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return logits (m, n_tokens) for (m, width)."""
        return F.linear(
            x, embedding[: len(self.bias)] if self.weight is None else self.weight, self.bias
        )
