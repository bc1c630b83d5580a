"""Which spots make each batch: pure functions of seed and epoch, which never touch data."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stp.data.neighborhoods import neighborhoods


def share(batch: np.ndarray, unit: int, rank: int, size: int) -> np.ndarray:
    """Return what one of several processes reads of a batch (m, 2), in whole units: groups, or spots of one slide."""
    return np.array_split(batch.reshape(-1, unit, 2), size)[rank].reshape(-1, 2)


class SpotSampler:
    """Shuffle the spots of all stores and cut them into full batches.

    Parameters
    ----------
    rows
        The rows to draw from, per store.
    batch_size
        Spots per batch, of all processes together; fewer spots than that make none.
    seed
        The order depends on it and on the epoch.
    spots_per_slide
        Spots of one slide that enter a batch together, so that a slide's stain does not tell pairs apart.
    """

    def __init__(
        self, rows: Sequence[np.ndarray], batch_size: int, seed: int, spots_per_slide: int = 1
    ) -> None:
        self.rows, self.seed, self.spots_per_slide = rows, seed, spots_per_slide
        self.unit = spots_per_slide
        self.batch_size = batch_size // spots_per_slide * spots_per_slide

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of one epoch, each (batch_size, 2) as store and row; the rest sits out."""
        rng = np.random.default_rng((self.seed, epoch))
        sets = np.concatenate([self._sets(store, rng) for store in range(len(self.rows))])
        spots = rng.permutation(sets).reshape(-1, 2)
        whole = len(spots) // self.batch_size * self.batch_size
        return list(spots[:whole].reshape(-1, self.batch_size, 2))

    def _sets(self, store: int, rng: np.random.Generator) -> np.ndarray:
        rows = rng.permutation(self.rows[store])
        rows = rows[: len(rows) // self.spots_per_slide * self.spots_per_slide].reshape(
            -1, self.spots_per_slide
        )
        return np.stack([np.full_like(rows, store), rows], axis=-1)  # (sets, spots_per_slide, 2)


class GroupSampler:
    """Draw neighborhoods on every slide anew each epoch and shuffle them into batches (paper, Algorithm 2).

    Parameters
    ----------
    coordinates, rows
        Per store, spot centers (n, 2) and the rows to draw from.
    batch_size
        Spots per batch, of all processes together: a multiple of `group_size`.
    seed
        Groups depend on seed, store and epoch.
    group_size
        Spots per neighborhood, the center included.
    """

    def __init__(
        self,
        coordinates: Sequence[np.ndarray],
        rows: Sequence[np.ndarray],
        batch_size: int,
        seed: int,
        group_size: int = 9,
    ) -> None:
        self.coordinates, self.rows, self.seed, self.group_size = (
            coordinates,
            rows,
            seed,
            group_size,
        )
        self.unit, self.groups_per_batch = group_size, max(1, batch_size // group_size)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of one epoch, each (groups * group_size, 2) as store and row; groups stand together."""
        groups = np.concatenate([self._groups(store, epoch) for store in range(len(self.rows))])
        groups = groups[np.random.default_rng((self.seed, epoch)).permutation(len(groups))]
        whole = len(groups) // self.groups_per_batch * self.groups_per_batch
        return list(groups[:whole].reshape(-1, self.groups_per_batch * self.group_size, 2))

    def _groups(self, store: int, epoch: int) -> np.ndarray:
        rows, rng = self.rows[store], np.random.default_rng((self.seed, store, epoch))
        chosen = rows[neighborhoods(self.coordinates[store][rows], rng, size=self.group_size)]
        return np.stack([np.full_like(chosen, store), chosen], axis=-1)  # (groups, group_size, 2)


class SpotIndex(NamedTuple):
    """Which spots make a batch: what samplers yield and datasets read."""

    epoch: int
    spots: np.ndarray  # (m, 2): store, row
