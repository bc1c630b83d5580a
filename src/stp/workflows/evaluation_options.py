"""What `stp evaluate` is asked for: the sides of a collection, limits and settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stp._log import preview
from stp.data.collection import PATIENT, SPLIT, Collection
from stp.data.column_values import has_value, nearest
from stp.tables.table import get_table

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a model is evaluated.

    Parameters
    ----------
    split
        Side of the collection that is scored.
    label
        Column of `obs` with tissue labels; None to leave out what needs labels.
    by
        Column of the collection with the patient of each store.
    seed
        Random seed for the choice of spots and stores, for clusters and for folds.
    max_spots
        Number of spots of a store that are used, at most.
    max_stores
        Number of stores of a side that are used, at most.
    find_duplicates
        Whether near-duplicates between the sides are searched.
    allow_leaks
        Score in spite of leaks, which the report lists.
    batch_size
        Number of spots per batch.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    table_key
        Name of the table in a SpatialData.
    """

    split: str = "test"
    label: str | None = None
    by: str = PATIENT
    seed: int = 0
    max_spots: int = 5000
    max_stores: int = 20
    find_duplicates: bool = True
    allow_leaks: bool = False
    batch_size: int = 64
    device: str | None = None
    precision: str = "auto"
    table_key: str = "table"

    def check(self) -> None:
        """Raise ValueError if a value is wrong."""
        for name in ("max_spots", "max_stores", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, and is {self.seed}")
        if self.split == TRAIN:
            raise ValueError(
                "the side 'train' has the references, so it cannot be scored; choose another side"
            )


@dataclass(frozen=True)
class Sides:
    """The stores of a collection that are used.

    Parameters
    ----------
    whole
        The collection.
    train
        Stores that references and baselines are taken from.
    scored
        Stores that are scored.
    left_out
        What was left out and why, a sentence each.
    """

    whole: Collection
    train: Collection
    scored: Collection
    left_out: tuple[str, ...]


def patients_of(collection: Collection, by: str) -> list[str]:
    """Return the patient of each store, "" if it is unknown."""
    if by not in collection.table:
        return [""] * len(collection)
    return [str(value) if has_value(value) else "" for value in collection.table[by]]


def choose_sides(collection: Collection, options: EvaluationOptions, *, needs_image: bool) -> Sides:
    """Return the stores to use of both sides.

    Raises
    ------
    ValueError
        The collection has no split, no store on one of the sides, no such column of patients, or
        a store was written anew after the table was made.
    """
    options.check()
    if SPLIT not in collection.table:
        raise ValueError(
            "the collection has no split, so nothing says which stores are scored; `stp split` "
            "makes one by patient"
        )
    if options.by not in collection.table and options.by != PATIENT:
        near = nearest(options.by, collection.table.columns)
        raise ValueError(f"the collection has no column {options.by!r}{near}")
    left_out: list[str] = []
    sides = []
    for side in (TRAIN, options.split):
        all_stores = collection.select(split=side)
        usable = all_stores.training_stores(needs_image=needs_image)
        is_usable = all_stores.table["name"].isin(usable.table["name"])
        unused = all_stores.table["name"][~is_usable].tolist()
        if unused:
            left_out.append(
                f"Stores of {side!r} that cannot be used: {preview(unused, 10)}; the column "
                "'problem' of the collection says why, or they have no image."
            )
        sides.append(_limit(usable, side, options, left_out))
    return Sides(collection, sides[0], sides[1], tuple(left_out))


def _limit(
    stores: Collection, side: str, options: EvaluationOptions, left_out: list[str]
) -> Collection:
    """Return at most as many stores as allowed, a random choice in the order of the table."""
    if len(stores) <= options.max_stores:
        return stores
    rng = np.random.default_rng(options.seed)
    rows = np.sort(rng.permutation(len(stores))[: options.max_stores])
    names = stores.table["name"].iloc[rows].tolist()
    n_unused = len(stores) - len(names)
    left_out.append(
        f"{n_unused} of {len(stores)} stores of {side!r}: max_stores is {options.max_stores}, and "
        f"the others were chosen at random with seed {options.seed}."
    )
    return stores.select({"name": names})


def check_labels(sides: Sides, options: EvaluationOptions) -> None:
    """Raise an error if labels cannot be learned from one side and scored on the other.

    Raises
    ------
    KeyError
        No store of a side has the column.
    ValueError
        The training side has fewer than two classes, or the scored side has no label.
    """
    label = options.label
    if label is None:
        return
    n_classes = []
    for side, stores in ((TRAIN, sides.train), (options.split, sides.scored)):
        classes: set[str] = set()
        columns: set[str] = set()
        for path in stores:
            obs = get_table(path, options.table_key).obs
            columns.update(map(str, obs.columns))
            if label in obs:
                classes.update(filter(None, read_labels(obs[label])))
        if label not in columns:
            raise KeyError(
                f"no store of {side!r} has obs[{label!r}]{nearest(label, sorted(columns))}; the "
                f"columns are {preview(sorted(columns), 20)}"
            )
        n_classes.append(len(classes))
    if n_classes[0] < 2 or n_classes[1] < 1:
        raise ValueError(
            f"obs[{label!r}] has {n_classes[0]} classes on the side {TRAIN!r} and {n_classes[1]} "
            f"on {options.split!r}; a probe needs two classes to train on and one to score"
        )


def read_labels(column: Sequence[Any]) -> list[str]:
    """Return labels as text, "" for a spot without one."""
    return [str(value) if has_value(value) else "" for value in column]
