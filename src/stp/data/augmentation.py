"""Rotate and stain images on their device; the random numbers are drawn elsewhere."""

import torch

__all__ = ["jitter_stain", "rotate", "rotate_cells"]

# A rotation is a number from 0 to 7. Its bits are two flips and a swap of the axes, which follows
# the flips. Together they are the eight symmetries of a square.
FLIP_X = 1
FLIP_Y = 2
SWAP = 4
N_ROTATIONS = 8


def rotate(images: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Flip and rotate square images (n, y, x, channels), each by its own rotation (n,)."""

    def has(bit: int) -> torch.Tensor:
        return (rotations & bit > 0)[:, None, None, None]

    images = torch.where(has(FLIP_X), images.flip(2), images)
    images = torch.where(has(FLIP_Y), images.flip(1), images)
    return torch.where(has(SWAP), images.transpose(1, 2), images)


def rotate_cells(cells: torch.Tensor, rotations: torch.Tensor, n_cells: int = 3) -> torch.Tensor:
    """Return the number of each region cell (n,) after its image was rotated.

    The `n_cells` x `n_cells` cells of an image are numbered row by row.
    """
    row = cells // n_cells
    column = cells % n_cells
    column = torch.where(rotations & FLIP_X > 0, n_cells - 1 - column, column)
    row = torch.where(rotations & FLIP_Y > 0, n_cells - 1 - row, row)
    swap = rotations & SWAP > 0
    return torch.where(swap, column, row) * n_cells + torch.where(swap, row, column)


def jitter_stain(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Make the stain of images (n, y, x, 3) darker or paler.

    The optical density of each channel is multiplied by a factor (n, 3). Values are 0 to 255.
    """
    return 255 * (images.float() / 255) ** factors[:, None, None]
