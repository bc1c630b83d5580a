"""Batches for alignment: the genes of spots, their patches, and the regions around them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from stp.data.dataset import Picks
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore

CELLS = 3  # regions are 3 x 3 patches


class PairDataset(Dataset):
    """Read pairs; cell, turn and stain depend on seed, store, spot and epoch alone.

    Parameters
    ----------
    stores, genes
        Where images come from; tokens of the spots, or features of a gene encoder that is not trained.
    image_size, um_per_px
        Pixels per side of patches and regions, and the scale of patches.
    seed
        Of cells, turns and stains.
    turn
        Flip and turn patch and region alike, by quarters.
    stain_jitter
        Standard deviation of the log factor on each channel's optical density.
    """

    def __init__(
        self,
        stores: Sequence[SpotStore],
        genes: SpotFile,
        *,
        image_size: int,
        um_per_px: float,
        seed: int,
        turn: bool = False,
        stain_jitter: float = 0.0,
    ) -> None:
        self.stores, self.genes = stores, genes
        self.image_size, self.um_per_px, self.seed = image_size, um_per_px, seed
        self.turn, self.stain_jitter = turn, stain_jitter

    def __getitem__(self, picks: Picks) -> dict[str, torch.Tensor]:
        """Return genes (m, width), patches and regions (m, size, size, 3), cells (m,), stains (m, 3)."""
        cells, turns, stains = zip(*(self._draw(store, row, picks.epoch) for store, row in picks.spots), strict=True)
        patches, regions = self._images(picks.spots, np.array(cells))
        arrays = {
            "genes": np.stack([self.genes[store][row] for store, row in picks.spots]),
            "patches": np.stack([turned(patch, turn) for patch, turn in zip(patches, turns, strict=True)]),
            "regions": np.stack([turned(region, turn) for region, turn in zip(regions, turns, strict=True)]),
            "cells": np.array([turned_cell(cell, turn) for cell, turn in zip(cells, turns, strict=True)]),
            "stains": np.stack(stains).astype(np.float32),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _draw(self, store: int, row: int, epoch: int) -> tuple[int, int, np.ndarray]:
        """Draw the region cell, one of eight turns, and a factor per channel."""
        rng = np.random.default_rng((self.seed, store, row, epoch))
        cell, turn, noise = rng.integers(CELLS * CELLS), rng.integers(8), rng.standard_normal(3)
        return int(cell), int(turn) if self.turn else 0, np.exp(self.stain_jitter * noise)

    def _images(self, spots: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(spots), self.image_size, self.image_size, 3)
        patches, regions = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for store in np.unique(spots[:, 0]):
            mine = np.flatnonzero(spots[:, 0] == store)
            rows = spots[mine, 1]
            patches[mine] = self.patches(store, rows)
            around = region_centers(self.stores[store].coordinates[rows], cells[mine], self.image_size * self.um_per_px)
            read = self.stores[store].pyramid.read
            regions[mine] = read(around, size=self.image_size, um_per_px=self.um_per_px * CELLS)
        return patches, regions

    def patches(self, store: int, rows: np.ndarray) -> np.ndarray:
        """Read the patches of these spots of a store: (n, size, size, 3) uint8."""
        centers = self.stores[store].coordinates[rows]
        return self.stores[store].pyramid.read(centers, size=self.image_size, um_per_px=self.um_per_px)


def region_centers(centers: np.ndarray, cells: np.ndarray, patch_um: float) -> np.ndarray:
    """Place regions so that each patch fills its cell: centers (n, 2) of regions in um; cells in row-major order."""
    row, column = np.divmod(cells, CELLS)
    middle = CELLS // 2
    return centers + np.column_stack([middle - column, middle - row]) * patch_um


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Turn an image (y, x, ...) by `turn % 4` quarters, and mirror it first where `turn` is 4 or more."""
    return np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4)


def turned_cell(cell: int, turn: int) -> int:
    """Return where a cell of the grid is after the turn."""
    grid = turned(np.arange(CELLS * CELLS).reshape(CELLS, CELLS), turn)
    return int(np.flatnonzero(grid.ravel() == cell)[0])
