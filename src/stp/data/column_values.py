"""Rows of a table by the values of its columns."""

import difflib
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MAX_VALUES = 8  # that an error lists


def find_rows(
    table: "pd.DataFrame", where: Mapping[str, object]
) -> tuple[np.ndarray, dict[str, tuple[Hashable, ...]]]:
    """Find the rows that have one of the values in each of some columns.

    Parameters
    ----------
    table
        The table.
    where
        Value, or list of values, by the name of the column.

    Returns
    -------
    Whether each row (n,) meets all conditions, and the values of each column as a tuple.

    Raises
    ------
    ValueError
        There is no such column, or no row of the table has one of the values.
    """
    is_match = np.ones(len(table), dtype=bool)
    values_of = {}
    for column, condition in where.items():
        if column not in table:
            near = nearest(column, table.columns)
            raise ValueError(f"there is no column {column!r}{near}; the columns are {list(table)}")
        values = _as_tuple(column, condition)
        cells = list(table[column])
        for value in values:
            if not any(_is_equal(cell, value) for cell in cells):
                raise ValueError(_describe_missing(column, value, cells))
        is_match &= [any(_is_equal(cell, value) for value in values) for cell in cells]
        values_of[column] = values
    return is_match, values_of


def has_value(cell: object) -> bool:
    """Return whether a cell has a value, neither missing nor ""."""
    import pandas as pd

    if not pd.api.types.is_scalar(cell):
        return True
    return bool(pd.notna(cell)) and cell != ""


def nearest(name: str, names: Iterable[object]) -> str:
    """Return a question after the name that is most similar, or "" if none is."""
    texts = [str(other) for other in names]
    by_lower = {text.lower(): text for text in texts}
    similar = difflib.get_close_matches(name, texts, n=1)
    for lower in difflib.get_close_matches(name.lower(), by_lower, n=1):
        similar.append(by_lower[lower])
    return f" (did you mean {similar[0]!r}?)" if similar else ""


def _as_tuple(column: str, condition: Any) -> tuple[Hashable, ...]:
    """Return the values of a condition, as Python's own numbers."""
    if isinstance(condition, Mapping):
        raise ValueError(f"the condition on {column!r} is a table; give a value or a list of them")
    is_list = isinstance(condition, Iterable) and not isinstance(condition, str)
    values = list(condition) if is_list else [condition]
    if not values:
        raise ValueError(f"the condition on {column!r} is an empty list; give at least one value")
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def _is_equal(cell: Any, value: Any) -> bool:
    """Return whether a cell has this value; a truth value equals no number, a missing one none."""
    if not has_value(cell) or not has_value(value):
        return False
    if _is_bool(cell) != _is_bool(value):
        return False
    return bool(cell == value)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def _describe_missing(column: str, value: Any, cells: list[Any]) -> str:
    """Return what is wrong with a value that no row has, and the nearest ones."""
    message = f"no row has {value!r} in {column!r}"
    if not has_value(value):
        return f"{message}: a cell without a value matches nothing; give a value"
    present = list(dict.fromkeys(cell for cell in cells if has_value(cell)))
    same_text = [cell for cell in present if str(cell) == str(value)]
    if same_text:
        return f"{message}; the column has {_plain(same_text[0])!r} ({_kind(same_text[0])})"
    near = nearest(value, present) if isinstance(value, str) else ""
    shown = ", ".join(repr(_plain(cell)) for cell in present[:MAX_VALUES])
    more = f" and {len(present) - MAX_VALUES} more" if len(present) > MAX_VALUES else ""
    return f"{message}{near}; it has {shown or 'no values'}{more}"


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.generic) else cell


def _kind(cell: Any) -> str:
    if isinstance(cell, str):
        return "text"
    return "true or false" if _is_bool(cell) else "a number"
