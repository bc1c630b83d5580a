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
GPU_STEP = 64  # on a GPU, numbers of tokens per spot are rounded up to a multiple of it


@dataclass(frozen=True)
class GeneEncoderConfig:
    """Size and pooling of a GeneEncoder; the defaults are the paper's (table 3).

    Parameters
    ----------
    context_length
        Number of genes that the model reads per spot, those with the highest ranks.
    width
        Width of tokens and features.
    depth
        Number of transformer blocks.
    n_heads
        Number of attention heads.
    ffn_width
        Width inside the feed-forward part of a block.
    pooling
        "mean" averages the real tokens. "reference" averages positions 4 to the last, padding
        included, as the released weights need.
    tie_heads
        Predict genes with the token embedding instead of separate matrices. The released weights
        have separate matrices.

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
    """Encode the ranked genes of spots; its weights have the names of the released weights.

    Parameters
    ----------
    config
        Size and pooling of the encoder.
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
    config: GeneEncoderConfig

    def __init__(self, config: GeneEncoderConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        n_tokens = vocabulary.n_tokens
        self.embeddings = nn.Embedding(n_tokens + UNUSED_ROWS, config.width)
        self.positional_embedding = nn.Embedding(config.context_length, config.width)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Block(config) for _ in range(config.depth))}
        )
        self.classifier_head = TokenHead(config.width, n_tokens, config.tie_heads)
        self.spatial_classifier_head = TokenHead(config.width, n_tokens, config.tie_heads)
        # Small embeddings keep the first predictions near the bias of the heads, which pretraining
        # sets to log frequencies.
        nn.init.normal_(self.embeddings.weight, std=0.02)
        nn.init.normal_(self.positional_embedding.weight, std=0.02)

    def _describe_parts(self) -> dict[str, str]:
        genes = super()._describe_parts()
        return {**genes, "features": str(self.width), "tokens": f"{self.config.context_length:,}"}

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the features of spots.

        Parameters
        ----------
        tokens
            Tokens (n, length) as `tl.tokenize` writes them: integers, padded with 0. Ranks beyond
            `context_length` are ignored.

        Returns
        -------
        Features (n, width).
        """
        ids = to_model_ids(tokens[:, : self.config.context_length])
        padding = self.config.pooling == "reference"
        if padding:
            ids = F.pad(ids, (0, self.config.context_length - ids.shape[1]), value=PAD_ID)
        return self.pool(self.hidden(ids, padding=padding), ids != PAD_ID)

    def hidden(self, ids: torch.Tensor, *, padding: bool = False) -> torch.Tensor:
        """Return the outputs of the last block (n, length, width).

        Parameters
        ----------
        ids
            Ids of the model (n, length), each row padded at its end. No token attends to padding.
        padding
            Compute outputs at padding, too; by default they are 0.
        """
        n, length = ids.shape
        if padding:
            step = length
        elif ids.device.type == "cpu":
            step = 1
        else:
            step = GPU_STEP  # few large products are faster there than many small ones
        places, groups = pack(ids != PAD_ID, step)
        tokens = self.embeddings(ids.flatten()[places])
        x = tokens + self.positional_embedding(places % length)  # (total, width)
        for block in self.encoder["layers"].children():
            x = block(x, groups)
        outputs = x.new_zeros(n * length, self.width).index_copy(0, places, x)
        return outputs.view(n, length, self.width)

    def pool(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the features (n, width) of spots: averages of outputs as `config.pooling` says.

        Parameters
        ----------
        hidden
            Outputs of the last block (n, length, width).
        real
            (n, length) bool, False at padding.
        """
        if self.config.pooling == "reference":
            return hidden[:, 3:].mean(1)
        weight = real[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return logits of all tokens (m, n_tokens) for outputs (m, width) of masked positions."""
        return self.classifier_head(outputs, self.embeddings.weight)

    def predict_from_context(self, context: torch.Tensor) -> torch.Tensor:
        """Return logits of all tokens (m, n_tokens) for contexts (m, width) of neighbors."""
        return self.spatial_classifier_head(context, self.embeddings.weight)

    @torch.no_grad()
    def start_heads(self, log_frequency: torch.Tensor) -> None:
        """Set the bias of both heads to the log frequency (n_tokens,) of the tokens.

        Training from scratch needs this start; loaded weights already have a bias.
        """
        for head in (self.classifier_head, self.spatial_classifier_head):
            head.bias.copy_(log_frequency)


def to_model_ids(tokens: torch.Tensor) -> torch.Tensor:
    """Return the model's ids, padded with 1, for stored tokens, padded with 0."""
    ids = tokens.long()
    return torch.where(ids == PAD, PAD_ID, ids)


class Group(NamedTuple):
    """Spots of one length, whose tokens follow each other in the stream."""

    n: int
    length: int
    mask: torch.Tensor | None  # (n, 1, 1, length), True at real tokens; None if all are real


def pack(real: torch.Tensor, step: int) -> tuple[torch.Tensor, list[Group]]:
    """Arrange the tokens of all spots in one stream without padding, grouped by length.

    Spots with 2, 3 and 2 real tokens, padded to 3, become the places 0 1, 6 7 (two spots of
    length 2) and 3 4 5 (one spot of length 3) of their 3 x 3 tokens.

    Parameters
    ----------
    real
        (n, length) bool, False at padding, which ends each row.
    step
        Lengths are rounded up to a multiple of it, but not beyond the padded length.

    Returns
    -------
    The place of each token of the stream (total,) in the flattened (n, length), and the groups.
    """
    n, width = real.shape
    lengths = (-(-real.sum(1).clamp_min(1) // step) * step).clamp_max(width)
    lengths, order = lengths.sort(stable=True)
    position = torch.arange(width, device=real.device)
    places = (order[:, None] * width + position)[position < lengths[:, None]]
    different_lengths, counts = lengths.unique_consecutive(return_counts=True)
    groups = []
    start = 0
    for length, count in zip(different_lengths.tolist(), counts.tolist(), strict=True):
        mask = real[order[start : start + count], None, None, :length]
        groups.append(Group(count, length, None if bool(mask.all()) else mask))
        start += count
    return places, groups


class Block(nn.Module):
    """Post-norm transformer block; its weights are named as in `nn.TransformerEncoderLayer`."""

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
    """Multi-head attention that never stores the attention matrix."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor, groups: list[Group]) -> torch.Tensor:
        """Map a stream of tokens (total, width) to the same shape; each attends within its spot."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        parts = qkv.split([group.n * group.length for group in groups])
        attended = [self._attend(part, group) for part, group in zip(parts, groups, strict=True)]
        return self.out_proj(torch.cat(attended))

    def _attend(self, qkv: torch.Tensor, group: Group) -> torch.Tensor:
        """Map (n * length, 3 * width) of spots of one length to (n * length, width)."""
        split = qkv.view(group.n, group.length, 3, self.n_heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each (n, heads, length, width / heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
        return attended.transpose(1, 2).reshape(group.n * group.length, -1)


class TokenHead(nn.Module):
    """Score tokens with the matrix of the embedding (tied), or with a separate matrix."""

    def __init__(self, width: int, n_tokens: int, is_tied: bool) -> None:
        super().__init__()
        self.weight = None
        if not is_tied:
            bound = width**-0.5
            self.weight = nn.Parameter(torch.empty(n_tokens, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_tokens))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return logits (m, n_tokens) for (m, width)."""
        weight = embedding[: len(self.bias)] if self.weight is None else self.weight
        return F.linear(x, weight, self.bias)
