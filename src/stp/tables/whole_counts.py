"""Checks that counts are whole numbers, and rounds those that nearly are."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from stp._log import warn

TOLERANCE = 1e-4  # of software that stores counts after a calculation

Result = TypeVar("Result")


class NearlyCountsError(ValueError):
    """Values differ from whole numbers by less than 1e-4."""


class RoundedCounts:
    """Counts on disk that are rounded when they are read.

    Parameters
    ----------
    counts
        Matrix whose rows can be sliced, (n, n_columns).
    """

    def __init__(self, counts: Any) -> None:
        self.counts = counts
        self.shape = counts.shape

    def __getitem__(self, rows: Any) -> Any:
        return round_block(self.counts[rows])


def with_whole_counts(counts: Any, compute: Callable[[Any], Result]) -> Result:
    """Return what `compute` makes of counts; round them first, with a warning, if they need it.

    Counts that are whole are not searched for other values before.
    """
    try:
        return compute(counts)
    except NearlyCountsError:
        warn_about_rounding()
        return compute(_round_counts(counts))


def warn_about_rounding() -> None:
    """Warn that counts are rounded."""
    warn("counts differ from whole numbers by less than 1e-4 and are rounded")


def is_whole(values: np.ndarray) -> bool:
    """Return whether all values are counts."""
    return bool(((values >= 0) & (values < np.inf) & (values == np.floor(values))).all())


def find_non_count(values: np.ndarray) -> float | None:
    """Return the first value that is no count, not even nearly, or None."""
    if is_whole(values):
        return None
    with np.errstate(invalid="ignore"):
        rounded = np.rint(values)
        is_count = (rounded >= 0) & (values < np.inf) & (abs(values - rounded) <= TOLERANCE)
    if not is_count.all():
        return float(values[is_count.argmin()])
    # If every value is nearly zero, these are shares and not counts.
    return None if (rounded > 0).any() else float(values[values != 0][0])


def not_whole_error(values: np.ndarray) -> ValueError:
    """Return the error about values that are not all counts."""
    value = find_non_count(values)
    if value is None:
        return NearlyCountsError("counts differ from whole numbers by less than 1e-4")
    return ValueError(not_raw(value))


def not_raw(value: float, slot: str = "the table") -> str:
    """Return the message that a value is not a raw count."""
    return (
        f"{slot} contains {_format(value)}, which is not a raw count "
        "(is it normalized, log-transformed or scaled?)"
    )


def round_block(block: Any) -> Any:
    """Return a block of rows with values rounded, of the same kind."""
    if not hasattr(block, "tocsr"):
        return np.rint(block)
    rounded = block.copy()
    rounded.data = np.rint(rounded.data)
    return rounded


def _round_counts(counts: Any) -> Any:
    """Return counts of any kind, rounded; those on disk or in Dask when they are read."""
    if hasattr(counts, "dask"):
        return counts.map_blocks(round_block)
    is_in_memory = isinstance(counts, np.ndarray) or hasattr(counts, "tocsr")
    return round_block(counts) if is_in_memory else RoundedCounts(counts)


def _format(value: float) -> str:
    """Return a value with so many digits that it does not look like a whole number."""
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if not np.isfinite(value) or value == np.floor(value) or float(text) != round(value):
            break
    return text
