"""Batches for alignment: genes or pathways of spots, their patches, and the regions around them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from stp.data.augmentation import N_TURNS
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore

CELLS = 3  # regions are 3 x 3 patches


class PairDataset(Dataset):
    """Read pairs; cell, turn and stain depend on seed, store, spot and epoch alone.

    Parameters
    ----------
    stores
        Where images come from.
    targets
        What images are aligned with, by name: "genes" (tokens, or features of a gene encoder that is not trained),
        "pathways" (scores of gene sets).
    image_size, um_per_px
        Pixels per side of patches and regions, and the scale of patches.
    seed
        Of cells, turns and stains.
    rotate
        Flip and turn patch and region alike, by quarters.
    stain_jitter
        Standard deviation of the log factor on each channel's optical density.
    """

    def __init__(
        self,
        stores: Sequence[SpotStore],
        targets: Mapping[str, SpotFile],
        *,
        image_size: int,
        um_per_px: float,
        seed: int,
        rotate: bool = False,
        stain_jitter: float = 0.0,
    ) -> None:
        self.stores, self.targets = stores, targets
        self.image_size, self.um_per_px, self.seed = image_size, um_per_px, seed
        self.rotate, self.stain_jitter = rotate, stain_jitter

    @property
    def names(self) -> list[str]:
        """Paths of the stores."""
        return [str(store.path) for store in self.stores]

    def __getitem__(self, picks: SpotIndex) -> dict[str, torch.Tensor]:
        """Return targets (m, width) by name, patches and regions (m, size, size, 3), and how to augment them.

        `turns` (m,) and `stains` (m, 3) are for the device to apply; `cells` (m,) are those before any turn.
        """
        cells, turns, stains = zip(
            *(self._draw(store, row, picks.epoch) for store, row in picks.spots), strict=True
        )
        patches, regions = self._images(picks.spots, np.array(cells))
        targets = {
            name: np.stack([values[store][row] for store, row in picks.spots])
            for name, values in self.targets.items()
        }
        drawn = {
            "cells": np.array(cells),
            "rotations": np.array(turns),
            "stains": np.stack(stains).astype(np.float32),
        }
        arrays = {**targets, "patches": patches, "regions": regions, **drawn}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _draw(self, store: int, row: int, epoch: int) -> tuple[int, int, np.ndarray]:
        """Draw the region cell, one of eight turns, and a factor per channel."""
        rng = np.random.default_rng((self.seed, store, row, epoch))
        cell, turn, noise = (
            rng.integers(CELLS * CELLS),
            rng.integers(N_TURNS),
            rng.standard_normal(3),
        )
        return int(cell), int(turn) if self.rotate else 0, np.exp(self.stain_jitter * noise)

    def _images(self, spots: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(spots), self.image_size, self.image_size, 3)
        patches, regions = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for store in np.unique(spots[:, 0]):
            mine = np.flatnonzero(spots[:, 0] == store)
            rows = spots[mine, 1]
            patches[mine] = self.patches(store, rows)
            around = region_centers(
                self.stores[store].coordinates[rows], cells[mine], self.image_size * self.um_per_px
            )
            read = self.stores[store].pyramid.read
            regions[mine] = read(around, size=self.image_size, um_per_px=self.um_per_px * CELLS)
        return patches, regions

    def patches(self, store: int, rows: np.ndarray) -> np.ndarray:
        """Read the patches of these spots of a store: (n, size, size, 3) uint8."""
        of = self.stores[store]
        assert (
            of.coordinates is not None and of.pyramid is not None
        )  # alignment takes no other stores
        return of.pyramid.read(of.coordinates[rows], size=self.image_size, um_per_px=self.um_per_px)


def region_centers(centers: np.ndarray, cells: np.ndarray, patch_um: float) -> np.ndarray:
    """Place regions so that each patch fills its cell: centers (n, 2) of regions in um; cells in row-major order."""
    row, column = np.divmod(cells, CELLS)
    middle = CELLS // 2
    return centers + np.column_stack([middle - column, middle - row]) * patch_um
