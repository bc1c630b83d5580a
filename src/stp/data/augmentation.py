"""Turn and stain images on the device that they are on; what is drawn comes from elsewhere."""

import torch

__all__ = ["jitter_stain", "rotate", "rotate_cells"]

FLIP_X, FLIP_Y, SWAP = (
    1,
    2,
    4,
)  # bits of a turn: together the eight symmetries of a square, flips first
N_TURNS = 8


def rotate(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Flip and turn square images (n, y, x, channels) by quarters, each by its turn (n,) of 0 to 7."""
    flip_x, flip_y, swap = (
        (turns & bit > 0)[:, None, None, None] for bit in (FLIP_X, FLIP_Y, SWAP)
    )
    images = torch.where(flip_x, images.flip(2), images)
    images = torch.where(flip_y, images.flip(1), images)
    return torch.where(swap, images.transpose(1, 2), images)


def rotate_cells(cells: torch.Tensor, turns: torch.Tensor, n_cells: int = 3) -> torch.Tensor:
    """Say where cells (n,) of a grid, numbered row by row, are once their images are turned."""
    row, column = cells // n_cells, cells % n_cells
    column = torch.where(turns & FLIP_X > 0, n_cells - 1 - column, column)
    row = torch.where(turns & FLIP_Y > 0, n_cells - 1 - row, row)
    swap = turns & SWAP > 0
    return torch.where(swap, column, row) * n_cells + torch.where(swap, row, column)


def jitter_stain(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply the optical density of each channel (n, 3): a darker or paler stain; images (n, y, x, 3) of 0 to 255."""
    return 255 * (images.float() / 255) ** factors[:, None, None]
