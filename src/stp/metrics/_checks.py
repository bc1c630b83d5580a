"""Checks of arrays that have one value per patient."""

from collections.abc import Sequence

import numpy as np


def finite_arrays(**arrays: Sequence[float] | np.ndarray) -> tuple[np.ndarray, ...]:
    """Return arrays of one length as float64.

    Raises
    ------
    ValueError
        There is no patient, the lengths differ, or a value is NaN or infinite.
    """
    converted = {name: np.asarray(values, np.float64) for name, values in arrays.items()}
    shapes = {values.shape for values in converted.values()}
    if len(shapes) > 1 or next(iter(shapes))[1:] or not next(iter(shapes), (0,))[0]:
        sizes = ", ".join(f"{name} {values.shape}" for name, values in converted.items())
        raise ValueError(f"one value per patient is needed, but the shapes are {sizes}")
    for name, values in converted.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has NaN or infinite values; leave these patients out")
    return tuple(converted.values())


def flags(name: str, values: np.ndarray) -> np.ndarray:
    """Return numbers that are 0 or 1 as booleans, or raise a ValueError that names another one."""
    is_wrong = ~np.isin(values, (0, 1))
    if is_wrong.any():
        raise ValueError(f"{name} must be 0 or 1, not {values[is_wrong][0]:g}")
    return values == 1


def probabilities_of(name: str, values: np.ndarray) -> np.ndarray:
    """Return numbers from 0 to 1 unchanged, or raise a ValueError that names another one."""
    is_wrong = (values < 0) | (values > 1)
    if is_wrong.any():
        raise ValueError(f"{name} must be from 0 to 1, not {values[is_wrong][0]:g}")
    return values


def check_level(level: float) -> None:
    """Raise ValueError if the level of an interval is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level}")
