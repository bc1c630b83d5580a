"""How a phase walks through its data: batches that are fitted to the number of spots."""

import warnings
from dataclasses import dataclass, field
from typing import Any

from stp.train.engine.processes import Processes

MIN_STEPS = 10  # an epoch has at least so many (method.md section 3)


@dataclass(frozen=True)
class BatchPlan:
    """How one phase walks through its data, after it was fitted to the data's size."""

    epochs: int
    batch_size: int
    accumulate: int
    notes: list[str] = field(default_factory=list, compare=False)


def fit_plan(
    n_spots: int, *, epochs: int, batch_size: int, accumulate: int, multiple: int = 1
) -> BatchPlan:
    """Shrink accumulation, then batches, so that an epoch over `n_spots` has at least ten steps.

    Parameters
    ----------
    n_spots
        Spots to train on.
    epochs, batch_size, accumulate
        As configured.
    multiple
        The batch is a multiple of it: of the spots that stay together, for each process.
    """
    whole = max(multiple, batch_size // multiple * multiple)
    size = max(multiple, min(whole, n_spots // MIN_STEPS // multiple * multiple))
    fitted = max(1, min(accumulate, n_spots // (MIN_STEPS * batch_size)))
    notes = []
    if (fitted, size) != (accumulate, whole):
        notes.append(
            f"{n_spots} spots are few: batches of {size} instead of {whole}, "
            f"{fitted} instead of {accumulate} per step, for {MIN_STEPS} steps an epoch"
        )
    return BatchPlan(epochs, size, fitted, notes)


def fitted(
    corpus: Any, wanted: Any, world: Processes, *, multiple: int = 1, stacklevel: int
) -> BatchPlan:
    """Fit batches, of all processes together, to the spots that fill sets of `multiple`; say so where they shrink."""
    n_spots = sum(len(rows) // multiple * multiple for rows in corpus.rows)
    multiple, wanted_size = multiple * world.size, wanted.batch_size * world.size
    sizes = {"batch_size": wanted_size, "accumulate": wanted.accumulate, "multiple": multiple}
    plan = fit_plan(n_spots, epochs=wanted.epochs, **sizes)
    for note in plan.notes if world.is_main else ():
        warnings.warn(note, stacklevel=stacklevel)
    return plan
