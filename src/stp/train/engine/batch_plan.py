"""Sizes of batches and steps, reduced if there are few spots."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np

from stp._log import count, warn
from stp.train.engine.processes import Processes

MIN_STEPS = 10  # an epoch has at least this many steps (method.md, section 3)


class BatchSettings(Protocol):
    """The fields of a config that a plan starts from."""

    @property
    def epochs(self) -> int:
        """Number of passes over the spots."""

    @property
    def batch_size(self) -> int:
        """Number of spots per batch and process."""

    @property
    def accumulate(self) -> int:
        """Number of batches per optimizer step."""


@dataclass(frozen=True)
class BatchPlan:
    """How one phase of training walks through its spots.

    Parameters
    ----------
    epochs
        Number of passes over the spots.
    batch_size
        Number of spots per batch, of all processes together.
    accumulate
        Number of batches per optimizer step.
    note
        Sentence that tells the user which sizes were reduced; None if none was.
    """

    epochs: int
    batch_size: int
    accumulate: int
    note: str | None = field(default=None, compare=False)

    @property
    def spots_per_step(self) -> int:
        """Number of spots of an optimizer step, of all processes together."""
        return self.batch_size * self.accumulate

    @classmethod
    def for_spots(
        cls, n_spots: int, *, epochs: int, batch_size: int, accumulate: int, multiple: int = 1
    ) -> Self:
        """Plan an epoch over `n_spots` with at least ten steps.

        If there are too few spots, steps take fewer batches first; then batches get smaller.

        Parameters
        ----------
        n_spots
            Number of spots to train on.
        epochs
            Number of passes over the spots.
        batch_size
            Largest number of spots per batch, of all processes together.
        accumulate
            Largest number of batches per optimizer step.
        multiple
            The batch size is a multiple of this number: spots that stay together, times processes.
        """
        largest = max(multiple, batch_size // multiple * multiple)
        for_min_steps = n_spots // MIN_STEPS // multiple * multiple
        size = max(multiple, min(largest, for_min_steps))
        n_batches = max(1, min(accumulate, n_spots // (MIN_STEPS * batch_size)))
        note = None
        if (n_batches, size) != (accumulate, largest):
            note = _describe_reduction(n_spots, (size, largest), (n_batches, accumulate))
        return cls(epochs, size, n_batches, note)

    @classmethod
    def for_corpus(
        cls,
        rows: Sequence[np.ndarray],
        settings: BatchSettings,
        processes: Processes,
        *,
        multiple: int = 1,
    ) -> Self:
        """Plan batches for the spots of several stores, and warn if the sizes had to be reduced.

        Parameters
        ----------
        rows
            Rows of the spots to train on, one array per store.
        settings
            Config with the sizes that the user asked for.
        processes
            The processes that share each batch.
        multiple
            Number of spots of one store that stay together; spots that fill no such set are left
            out.
        """
        n_spots = sum(len(store_rows) // multiple * multiple for store_rows in rows)
        plan = cls.for_spots(
            n_spots,
            epochs=settings.epochs,
            batch_size=settings.batch_size * processes.size,
            accumulate=settings.accumulate,
            multiple=multiple * processes.size,
        )
        if plan.note is not None and processes.is_main:
            warn(plan.note)
        return plan


def _describe_reduction(
    n_spots: int, batch_size: tuple[int, int], accumulate: tuple[int, int]
) -> str:
    """Return the warning about sizes that were reduced; each pair is the new and the old size."""
    changes = []
    if batch_size[0] != batch_size[1]:
        changes.append(f"a batch has {count(batch_size[0], 'spot')} instead of {batch_size[1]:,}")
    if accumulate[0] != accumulate[1]:
        n_batches = count(accumulate[0], "batch", "batches")
        changes.append(f"a step has {n_batches} instead of {accumulate[1]:,}")
    return (
        f"there are only {count(n_spots, 'spot')} to train on: {' and '.join(changes)}, so that an "
        f"epoch has {MIN_STEPS} steps. Add slides, or set batch_size and accumulate to these values"
    )
