"""The losses of both stages as functions of tensors (paper, equations 4, 5, 7 to 11)."""

import torch
import torch.nn.functional as F


def pooled_context(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Average the neighbors of each group into one context vector: real tokens of each, then neighbors (eq. 5).

    Parameters
    ----------
    hidden
        (groups, size, length, width) outputs, the center first.
    real
        (groups, size, length) bool, False at padding.

    Returns
    -------
    (groups, width)
    """
    real = real[:, 1:, :, None].to(hidden.dtype)
    per_spot = (hidden[:, 1:] * real).sum(2) / real.sum(2).clamp_min(1)
    return per_spot.mean(1)


def contrast(
    queries: torch.Tensor, keys: torch.Tensor, scale: torch.Tensor | float, first: int = 0
) -> torch.Tensor:
    """Cross-entropy of each query against all keys (InfoNCE one way, eq. 10).

    Parameters
    ----------
    queries, keys
        (n, d) and (m, d) unit vectors; query i belongs to key `first + i`, all other keys are its negatives.
    scale
        Factor of the cosines.
    first
        0 where both are of one process.
    """
    logits = scale * queries @ keys.T
    return F.cross_entropy(logits, torch.arange(first, first + len(queries), device=queries.device))


def symmetric_contrast(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    all_a: torch.Tensor | None = None,
    all_b: torch.Tensor | None = None,
    first: int = 0,
) -> torch.Tensor:
    """InfoNCE in both directions, averaged (eq. 9).

    Parameters
    ----------
    a, b
        (n, d) unit vectors, pair by pair.
    scale
        Factor of the cosines.
    all_a, all_b, first
        (m, d) keys where there are more than `a` and `b`, of other processes, and the place of these among them.
    """
    keys_a, keys_b = a if all_a is None else all_a, b if all_b is None else all_b
    return (contrast(a, keys_b, scale, first) + contrast(b, keys_a, scale, first)) / 2


def grid_pool(tokens: torch.Tensor, cells: int = 3) -> torch.Tensor:
    """Average region tokens over a grid of overlapping windows (eq. 8).

    A grid of 14 x 14 tokens gives windows of 6 with stride 4; in general the stride is the grid over `cells`,
    rounded down, and the windows reach both borders.

    Parameters
    ----------
    tokens
        (n, grid * grid, width) in row-major order.
    cells
        Cells per side.

    Returns
    -------
    (n, cells * cells, width), cells in row-major order.
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
    cells: torch.Tensor, reference: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Cosines of the reference token (n, d) with the nine cells (n, 9, d), times the scale: (n, 9) (eq. 7)."""
    cells, reference = F.normalize(cells, dim=-1), F.normalize(reference, dim=-1)
    return scale * torch.einsum("ncd,nd->nc", cells, reference)
