"""The losses of both stages as functions of tensors (paper, equations 4, 5, 7 to 11)."""

import torch
import torch.nn.functional as F


def pooled_context(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Average the neighbors of each group into one context vector (eq. 5).

    The real tokens of each neighbor are averaged first, then the neighbors.

    Parameters
    ----------
    hidden
        Outputs (groups, size, length, width) of the spots, the center of each group first.
    real
        Whether a token is real (groups, size, length); False at padding.

    Returns
    -------
    Context vectors (groups, width).
    """
    weights = real[:, 1:, :, None].to(hidden.dtype)
    per_spot = (hidden[:, 1:] * weights).sum(2) / weights.sum(2).clamp_min(1)
    return per_spot.mean(1)


def contrast(
    queries: torch.Tensor, keys: torch.Tensor, scale: torch.Tensor | float, offset: int = 0
) -> torch.Tensor:
    """Return the cross-entropy of each query against all keys (InfoNCE one way, eq. 10).

    Query i belongs to key `offset + i`; all other keys are its negatives.

    Parameters
    ----------
    queries
        Unit vectors (n, d).
    keys
        Unit vectors (m, d).
    scale
        Factor of the cosines.
    offset
        Row of `keys` that matches the first query (0 in a single process).
    """
    logits = scale * queries @ keys.T
    matches = torch.arange(offset, offset + len(queries), device=queries.device)
    return F.cross_entropy(logits, matches)


def symmetric_contrast(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    all_a: torch.Tensor | None = None,
    all_b: torch.Tensor | None = None,
    offset: int = 0,
) -> torch.Tensor:
    """Return InfoNCE averaged over both directions (eq. 9).

    Parameters
    ----------
    a, b
        Unit vectors (n, d) of the pairs, row by row.
    scale
        Factor of the cosines.
    all_a, all_b
        Unit vectors (m, d) of all processes; by default those of `a` and `b` alone.
    offset
        Row of `all_a` and `all_b` with the first pair (0 in a single process).
    """
    keys_a = a if all_a is None else all_a
    keys_b = b if all_b is None else all_b
    return (contrast(a, keys_b, scale, offset) + contrast(b, keys_a, scale, offset)) / 2


def grid_pool(tokens: torch.Tensor, cells: int = 3) -> torch.Tensor:
    """Average region tokens over a grid of overlapping windows (eq. 8).

    A grid of 14 x 14 tokens gives windows of 6 with stride 4. In general the stride is the grid
    over `cells`, rounded down, and the windows reach both borders.

    Parameters
    ----------
    tokens
        Tokens (n, grid * grid, width) in row-major order.
    cells
        Number of cells per side.

    Returns
    -------
    Cells (n, cells * cells, width) in row-major order.
    """
    n, length, width = tokens.shape
    grid = round(length**0.5)
    if grid * grid != length or grid < cells:
        raise ValueError(f"{length} tokens are no square grid of at least {cells} x {cells}")
    stride = grid // cells
    window = grid - (cells - 1) * stride
    maps = tokens.transpose(1, 2).reshape(n, width, grid, grid)
    return F.avg_pool2d(maps, window, stride).flatten(2).transpose(1, 2)


def localization_logits(
    cells: torch.Tensor, patch_tokens: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the scaled cosines (n, 9) of each patch token with the nine cells (eq. 7).

    Parameters
    ----------
    cells
        Vectors (n, 9, d) of the cells of each region.
    patch_tokens
        Vector (n, d) of the patch that each region contains.
    scale
        Factor of the cosines.
    """
    cells = F.normalize(cells, dim=-1)
    patch_tokens = F.normalize(patch_tokens, dim=-1)
    return scale * torch.einsum("ncd,nd->nc", cells, patch_tokens)
