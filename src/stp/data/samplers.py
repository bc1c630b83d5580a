"""Which spots make each batch: functions of seed and epoch alone, which never read data."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from stp.data.neighborhoods import neighborhoods


class SpotIndex(NamedTuple):
    """The spots of a batch: samplers choose them, and datasets read them."""

    epoch: int
    spots: np.ndarray  # (m, 2): store, row


class Sampler(Protocol):
    """Choose the spots of each batch."""

    unit: int  # number of consecutive spots that must stay in one process

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of one epoch, each (m, 2) as store and row."""
        ...


def share(batch: np.ndarray, unit: int, rank: int, size: int) -> np.ndarray:
    """Return the part of a batch (m, 2) that process `rank` of `size` reads.

    `unit` consecutive spots stay together: a group, or spots of one slide.
    """
    return np.array_split(batch.reshape(-1, unit, 2), size)[rank].reshape(-1, 2)


class SpotSampler:
    """Shuffle the spots of all stores and divide them into full batches.

    Parameters
    ----------
    rows
        Rows of each store to draw from.
    batch_size
        Number of spots per batch, over all processes. With fewer spots there is no batch.
    seed
        Random seed for the order, which also depends on the epoch.
    spots_per_slide
        Number of spots of one slide that enter a batch together. With more than one, the stain of
        a slide does not tell which image belongs to which spot.
    """

    def __init__(
        self, rows: Sequence[np.ndarray], batch_size: int, seed: int, spots_per_slide: int = 1
    ) -> None:
        self.rows = rows
        self.seed = seed
        self.unit = spots_per_slide
        self.batch_size = batch_size // spots_per_slide * spots_per_slide

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of one epoch, each (batch_size, 2) as store and row.

        Spots that do not fill a batch are left out of this epoch.
        """
        rng = np.random.default_rng((self.seed, epoch))
        sets = np.concatenate([self._draw_sets(store, rng) for store in range(len(self.rows))])
        spots = rng.permutation(sets).reshape(-1, 2)
        n_batches = len(spots) // self.batch_size
        return list(spots[: n_batches * self.batch_size].reshape(-1, self.batch_size, 2))

    def _draw_sets(self, store: int, rng: np.random.Generator) -> np.ndarray:
        """Divide the spots of a store at random into sets (n_sets, unit, 2)."""
        rows = rng.permutation(self.rows[store])
        n_sets = len(rows) // self.unit
        rows = rows[: n_sets * self.unit].reshape(-1, self.unit)
        return np.stack([np.full_like(rows, store), rows], axis=-1)


class GroupSampler:
    """Draw neighborhoods on each slide and shuffle them into batches (paper, Algorithm 2).

    Neighborhoods are drawn anew for each epoch, once: they are kept, in 4 bytes per spot and epoch.

    Parameters
    ----------
    coordinates
        Spot centers (n, 2) of each store.
    rows
        Rows of each store to draw from.
    batch_size
        Number of spots per batch, over all processes; a multiple of `group_size`.
    seed
        Random seed for the groups, which also depend on store and epoch.
    group_size
        Number of spots per neighborhood, the center included.
    radius
        Distance from the center, in the unit of the coordinates, within which the others are
        drawn; by default they are the nearest.
    """

    def __init__(
        self,
        coordinates: Sequence[np.ndarray],
        rows: Sequence[np.ndarray],
        batch_size: int,
        seed: int,
        group_size: int = 9,
        radius: float | None = None,
    ) -> None:
        self.coordinates = coordinates
        self.radius = radius
        self.rows = rows
        self.seed = seed
        self.unit = group_size
        self.groups_per_batch = max(1, batch_size // group_size)
        self._groups: dict[int, list[np.ndarray]] = {}  # of each epoch and store, as rows

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of one epoch, each (groups * group_size, 2) as store and row.

        The spots of a group are consecutive, the center first.
        """
        if epoch not in self._groups:
            self._groups[epoch] = [
                self._draw_groups(store, epoch) for store in range(len(self.rows))
            ]
        rows = np.concatenate(self._groups[epoch])
        sizes = [len(groups) for groups in self._groups[epoch]]
        stores = np.repeat(np.arange(len(sizes)), sizes)
        groups = np.empty((*rows.shape, 2), dtype=np.int64)
        groups[..., 0] = stores[:, None]
        groups[..., 1] = rows
        groups = groups[np.random.default_rng((self.seed, epoch)).permutation(len(groups))]
        n_batches = len(groups) // self.groups_per_batch
        n_spots = self.groups_per_batch * self.unit
        return list(groups[: n_batches * self.groups_per_batch].reshape(-1, n_spots, 2))

    def _draw_groups(self, store: int, epoch: int) -> np.ndarray:
        """Draw the groups of a store, as rows (n_groups, group_size) int32."""
        rng = np.random.default_rng((self.seed, store, epoch))
        rows = self.rows[store]
        coordinates = self.coordinates[store][rows]
        groups = neighborhoods(coordinates, rng, size=self.unit, radius=self.radius)
        return rows[groups].astype(np.int32)
