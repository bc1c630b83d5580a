"""Batches for alignment: genes or pathways of spots, their patches, and the regions around them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from stp.data.augmentation import N_ROTATIONS
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore

CELLS = 3  # a region is 3 x 3 patches


class Draw(NamedTuple):
    """What is random about a pair: the region cell of its patch, a rotation, and a stain."""

    cell: int  # 0 to 8, row by row, before the rotation
    rotation: int  # 0 to 7
    stain: np.ndarray  # (3,) factor on the optical density of each channel


class PairDataset(Dataset):
    """Read pairs of images and genes. Random parts depend only on seed, store, spot and epoch.

    Parameters
    ----------
    stores
        Stores with the images.
    targets
        Values of all spots with which images are aligned. "genes" are tokens, or features of a
        frozen gene encoder; "pathways" are scores of gene sets.
    image_size
        Side of patches and regions in pixels.
    um_per_px
        µm per pixel of the patches.
    seed
        Random seed for cells, rotations and stains.
    rotate
        Flip and rotate the patch and the region of a spot in the same way.
    stain_jitter
        Standard deviation of the logarithm of the stain factors.
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
        self.stores = stores
        self.targets = targets
        self.image_size = image_size
        self.um_per_px = um_per_px
        self.seed = seed
        self.rotate = rotate
        self.stain_jitter = stain_jitter

    @property
    def names(self) -> list[str]:
        """Paths of the stores."""
        return [store.source for store in self.stores]

    def __getitem__(self, index: SpotIndex) -> dict[str, torch.Tensor]:
        """Return the targets (m, width) by name, the images, and how to augment them.

        "patches" and "regions" are (m, size, size, 3) uint8. "rotations" (m,) and "stains" (m, 3)
        are applied later, on the device. "cells" (m,) are the region cells before the rotation.
        """
        draws = [self._draw(store, row, index.epoch) for store, row in index.spots]
        cells = np.array([draw.cell for draw in draws])
        patches, regions = self._read_images(index.spots, cells)
        arrays = {
            name: np.stack([values[store][row] for store, row in index.spots])
            for name, values in self.targets.items()
        }
        arrays["patches"] = patches
        arrays["regions"] = regions
        arrays["cells"] = cells
        arrays["rotations"] = np.array([draw.rotation for draw in draws])
        arrays["stains"] = np.stack([draw.stain for draw in draws]).astype(np.float32)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _draw(self, store: int, row: int, epoch: int) -> Draw:
        rng = np.random.default_rng((self.seed, store, row, epoch))
        cell = int(rng.integers(CELLS * CELLS))
        # Drawn also if it is not used, so that the stain does not depend on `rotate`.
        rotation = int(rng.integers(N_ROTATIONS))
        stain = np.exp(self.stain_jitter * rng.standard_normal(3))
        return Draw(cell, rotation if self.rotate else 0, stain)

    def _read_images(self, spots: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the patches and regions of spots, store by store."""
        shape = (len(spots), self.image_size, self.image_size, 3)
        patches = np.empty(shape, np.uint8)
        regions = np.empty(shape, np.uint8)
        for store in np.unique(spots[:, 0]):
            positions = np.flatnonzero(spots[:, 0] == store)
            rows = spots[positions, 1]
            patches[positions] = self.patches(store, rows)
            regions[positions] = self._regions(store, rows, cells[positions])
        return patches, regions

    def patches(self, store: int, rows: np.ndarray) -> np.ndarray:
        """Read the patches of spots of a store: (n, size, size, 3) uint8."""
        return self._read(store, self._centers(store, rows), self.um_per_px)

    def _regions(self, store: int, rows: np.ndarray, cells: np.ndarray) -> np.ndarray:
        patch_um = self.image_size * self.um_per_px
        centers = region_centers(self._centers(store, rows), cells, patch_um)
        return self._read(store, centers, self.um_per_px * CELLS)

    def _centers(self, store: int, rows: np.ndarray) -> np.ndarray:
        coordinates = self.stores[store].coordinates
        assert coordinates is not None  # alignment accepts only stores with coordinates
        return coordinates[rows]

    def _read(self, store: int, centers: np.ndarray, um_per_px: float) -> np.ndarray:
        pyramid = self.stores[store].pyramid
        assert pyramid is not None  # alignment accepts only stores with an image
        return pyramid.read(centers, size=self.image_size, um_per_px=um_per_px)


def region_centers(centers: np.ndarray, cells: np.ndarray, patch_um: float) -> np.ndarray:
    """Return centers (n, 2) of regions, so that the patch of each spot fills its region cell.

    `centers` (n, 2) are those of the spots in µm. `cells` (n,) are numbered row by row.
    """
    row, column = np.divmod(cells, CELLS)
    middle = CELLS // 2
    return centers + np.column_stack([middle - column, middle - row]) * patch_um
