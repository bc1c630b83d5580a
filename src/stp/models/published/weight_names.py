"""Names of weights: those of transformers, DINOv2 and CONCH become those of timm."""

import re

import torch
import torch.nn.functional as F

# Patterns of the names elsewhere, and of the names in timm. All that match are applied in order.
RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^visual\.trunk\.", ""),
        (r"^visual\.attn_pool_contrast\.query$", "pool.query"),
        (r"^visual\.attn_pool_contrast\.attn\.", "pool.attention."),
        (r"^visual\.attn_pool_contrast\.ln_q\.", "pool.query_norm."),
        (r"^visual\.attn_pool_contrast\.ln_k\.", "pool.token_norm."),
        (r"^visual\.ln_contrast\.", "pool.norm."),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.mask_token$", "mask_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^(embeddings\.)?register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.q_proj\.", ".attn.query."),
        (r"\.attention\.k_proj\.", ".attn.key."),
        (r"\.attention\.v_proj\.", ".attn.value."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.mlp\.(weights_in|w12)\.", ".mlp.fc1."),
        (r"\.mlp\.(weights_out|w3|down_proj)\.", ".mlp.fc2."),
    )
]
# timm has one matrix for what others keep in several.
MERGED = {
    ".attn.qkv.": (".attn.query.", ".attn.key.", ".attn.value."),
    ".mlp.fc1.": (".mlp.gate_proj.", ".mlp.up_proj."),
}


def to_timm_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of transformers, DINOv2 or CONCH as in timm; names of timm stay as they are.

    Attention pooling, which timm does not have, gets the names of
    `stp.models.pooling.AttentionPool` after `pool.`.
    """
    renamed = {_rename(name): tensor for name, tensor in weights.items()}
    for whole, parts in MERGED.items():
        for name in [name for name in renamed if parts[0] in name]:
            names = [name.replace(parts[0], part) for part in parts]
            if all(part in renamed for part in names):
                merged = torch.cat([renamed.pop(part) for part in names])
                renamed[name.replace(parts[0], whole)] = merged
    return renamed


def _rename(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = pattern.sub(replacement, name)
    return name


def fit_positions(
    weights: dict[str, torch.Tensor], expected: torch.Tensor, n_prefix: int, interpolation: str
) -> dict[str, torch.Tensor]:
    """Return weights whose position embedding has the shape that timm expects, if it can.

    Some encoders of timm have no position for their class token: it is added to the token. A grid
    of another size is resized if the authors' code does so.

    Parameters
    ----------
    weights
        Weights with names of timm.
    expected
        The position embedding of the encoder (1, length, width).
    n_prefix
        Number of positions before those of the grid.
    interpolation
        "bicubic" or "antialiased bicubic"; with an empty text, other grids stay as they are.
    """
    weights = dict(weights)
    positions = weights.get("pos_embed")
    if positions is None or positions.ndim != 3 or "cls_token" not in weights:
        return weights
    if n_prefix == 0 and _side(positions.shape[1] - 1):
        # A square has no neighbor that is one larger, so the first position is the class token's.
        weights["cls_token"] = weights["cls_token"] + positions[:, :1]
        positions = positions[:, 1:]
    side = _side(positions.shape[1] - n_prefix)
    new_side = _side(expected.shape[1] - n_prefix)
    if interpolation and side and new_side and side != new_side:
        grid = positions[:, n_prefix:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        resized = F.interpolate(
            grid,
            size=(new_side, new_side),
            mode="bicubic",
            antialias=interpolation == "antialiased bicubic",
        )
        resized = resized.flatten(2).transpose(1, 2).to(positions.dtype)
        positions = torch.cat([positions[:, :n_prefix], resized], dim=1)
    weights["pos_embed"] = positions
    return weights


def _side(n_positions: int) -> int:
    """Return the side of a square grid with so many positions; 0 if there is none."""
    side = round(max(n_positions, 0) ** 0.5)
    return side if side * side == n_positions else 0
