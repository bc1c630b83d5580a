"""Divide the stores of a collection into sides for training, validation and test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stp._log import logger, preview
from stp.data.collection import N_SPOTS, PATIENT, SPLIT, Collection
from stp.data.column_values import has_value, nearest
from stp.data.split_units import find_units, has_problem, measure_units, place_units, weigh

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("train", "validation", "test")
STRATIFY = ("organ", "platform")


def assign_split(
    collection: Collection,
    *,
    by: str = PATIENT,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    stratify: Sequence[str] = STRATIFY,
    duplicates: "pd.DataFrame | None" = None,
    key_added: str = SPLIT,
    overwrite: bool = False,
) -> Collection:
    """Divide stores into training, validation and test, with all stores of a patient on one side.

    Near-duplicates and stores of the same content are on one side, too, and with them all stores of
    their patients. Such a unit is never divided. Units are placed one by one, in random order, on
    the side that lacks most spots: in all, of the organs and of the platforms. Of several random
    orders the one that comes closest to the shares is chosen. Each side gets one unit at least.

    Parameters
    ----------
    collection
        The collection, of :func:`stp.io.read_collection`.
    by
        Column with the patient of each store; "name" treats every store as a patient.
    validation
        Share of the spots to validate with; 0 for no such side.
    test
        Share of the spots to test with; 0 for no such side.
    seed
        Random seed for the order of the patients. The order of the rows does not matter.
    stratify
        Columns whose values have the same shares on each side, as far as whole patients allow. Of
        "organ" and "platform", those that the table lacks are ignored.
    duplicates
        Near-duplicates as :func:`stp.tl.find_duplicates` returns them: names of two stores in the
        columns "first" and "second". By default only stores of the same content are known.
    key_added
        Name under which the results are stored.
    overwrite
        Replace the split that the table has.

    Returns
    -------
    A copy of the collection whose table has the column `key_added`: "train", "validation" or
    "test". `Collection.write` saves it. If the table has no column `n_spots`, stores are counted
    instead of spots. Stores that have a `problem` get the side of their patient, and their spots do
    not count.

    Raises
    ------
    ValueError
        A store has no patient, there are fewer units than sides, the table has a split and
        `overwrite` is False, or a share or a column is wrong.

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> names = ["a1", "a2", "b1", "c1", "d1"]
    >>> table = pd.DataFrame({"name": names, "path": names, "digest": names})
    >>> table["patient"] = ["A", "A", "B", "C", "D"]
    >>> collection = stp.io.Collection(table, Path("stores"))
    >>> split = stp.tl.assign_split(collection, validation=0.25, test=0.25).table["split"]
    >>> bool(split[0] == split[1]), sorted(set(split))
    (True, ['test', 'train', 'validation'])
    """
    table = collection.table
    shares = _check_shares(validation, test)
    _check_columns(table, by, stratify, key_added, overwrite)
    units = find_units(table, by, duplicates)
    sizes = measure_units(table, units, [column for column in stratify if column in table])
    n_units = int((sizes[:, 0] > 0).sum())
    if n_units < len(shares):
        raise ValueError(
            f"{len(shares)} sides need as many units of whole patients with their near-duplicates, "
            f"and the collection has {n_units}; pass validation=0 or test=0, or add patients"
        )
    sides = place_units(sizes, np.array(list(shares.values())), np.random.default_rng(seed))
    names = np.array(list(shares), dtype=object)[sides]
    split = replace(collection, table=table.assign(**{key_added: names[units]}))
    parts = count_sides(split, by, key_added)
    logger.info("Split: " + ", ".join(f"{side} {parts.share[side]:.0%}" for side in parts.index))
    return split


def count_sides(collection: Collection, by: str, key: str) -> "pd.DataFrame":
    """Count what is on each side of a split.

    Returns
    -------
    A row per side with the numbers of stores, patients, spots and organs, and the share of the
    spots, or of the stores if spots were not counted.
    """
    import pandas as pd

    table = collection.table
    weights = weigh(table)
    rows = {}
    for side in SIDES:
        is_here = (table[key] == side).to_numpy(dtype=bool)
        if not is_here.any():
            continue
        row = {"stores": int(is_here.sum()), "patients": table[by][is_here].nunique()}
        if N_SPOTS in table:
            row["spots"] = int(weights[is_here].sum())
        row["share"] = weights[is_here].sum() / weights.sum()
        if "organ" in table:
            organs = {value for value in table["organ"][is_here] if has_value(value)}
            row["organs"] = len(organs)
        rows[side] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _check_shares(validation: float, test: float) -> dict[str, float]:
    """Return the share of each side that is not empty."""
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be a share from 0 to below 1, not {share}")
    if validation + test >= 1:
        raise ValueError(
            f"validation={validation} and test={test} leave nothing to train on; lower them"
        )
    shares = dict(zip(SIDES, (1 - validation - test, validation, test), strict=True))
    return {side: share for side, share in shares.items() if share > 0}


def _check_columns(
    table: "pd.DataFrame", by: str, stratify: Sequence[str], key_added: str, overwrite: bool
) -> None:
    """Raise ValueError if a column is missing, has no value, or would be replaced."""
    if isinstance(stratify, str):
        raise ValueError(f"stratify is one text, {stratify!r}; pass a list of columns")
    for column in (by, *stratify):
        if column not in table and (column == by or column not in STRATIFY):
            near = nearest(column, table.columns)
            raise ValueError(f"there is no column {column!r}{near}; the columns are {list(table)}")
    names = [
        name for name, value in zip(table["name"], table[by], strict=True) if not has_value(value)
    ]
    if names:
        raise ValueError(
            f"{len(names)} rows have no {by!r}: {preview(names, 10)}; fill the column, or pass "
            'by="name" if every store is of another patient. If there is a manifest, fill the '
            "column there, and run `stp prepare` again"
        )
    trainable = table[~has_problem(table)]
    if N_SPOTS in table and not (trainable[N_SPOTS] > 0).all():
        few = trainable["name"][~(trainable[N_SPOTS] > 0)]
        raise ValueError(f"{N_SPOTS!r} is missing or 0 in the rows {preview(few, 10)}; fill it")
    if key_added in ("name", "path", "digest", N_SPOTS, by, *stratify):
        raise ValueError(f"key_added={key_added!r} is a column that the split is made from")
    if key_added in table and not overwrite:
        raise ValueError(
            f"the collection has a split {key_added!r}; pass overwrite=True to replace it, or "
            "another key_added"
        )
