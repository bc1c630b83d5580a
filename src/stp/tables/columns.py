"""Columns of a table as types that AnnData and SpatialData can store."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stp._log import warn

if TYPE_CHECKING:
    import pandas as pd


def convert_columns(frame: "pd.DataFrame", slot: str) -> None:
    """Convert columns that zarr cannot store, or would store with other values, in place.

    Lists, dates and values of several types become text, and a warning names their columns.
    Missing values stay missing: zarr would write a column of text with the word "nan".

    Parameters
    ----------
    frame
        Table whose column names are unique.
    slot
        Name of the table in the warning.
    """
    texts = []
    for name in list(frame):
        column = frame[name]
        kind = _kind_of(column)
        if not kind:
            continue
        frame[name] = _convert(column, kind)
        if kind in ("lists", "dates", "mixed"):
            texts.append(f"{slot}[{name!r}]")
    if texts:
        warn(f"lists, dates and mixed values were written as text: {', '.join(texts)}")


def _kind_of(column: "pd.Series") -> str:
    """Return the kind of a column that needs another type, or ""."""
    import pandas as pd

    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype):
        return "dates"
    if isinstance(column.dtype, pd.StringDtype):
        return "text"
    if column.dtype != object:
        return ""
    if column.map(_is_list).any():
        return "lists"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred == "string":
        return "text" if column.isna().any() else ""
    dtypes = {"boolean": "boolean", "integer": "Int64", "floating": "float64", "empty": "float64"}
    dtypes["mixed-integer-float"] = "float64"
    return dtypes.get(inferred, "mixed")


def _convert(column: "pd.Series", kind: str) -> "pd.Series":
    if kind in ("boolean", "Int64", "float64"):
        return column.astype(kind)
    values = column.astype(object)
    is_missing = column.isna()
    if kind == "lists":
        values = values.map(_join)
    elif kind in ("dates", "mixed"):
        values = values.map(_text)
    # Categories can be missing; text cannot.
    return values.mask(is_missing).astype("category") if is_missing.any() else values


def _is_list(value: object) -> bool:
    is_collection = isinstance(value, list | tuple | set | frozenset | dict)
    return is_collection or type(value).__name__ in ("ndarray", "Series", "Index")


def _join(value: object) -> str:
    """Return a list as text with commas between its values."""
    if isinstance(value, dict):
        return ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items())
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(_text(item) for item in value))
    if isinstance(value, Iterable) and _is_list(value):
        return ", ".join(_text(item) for item in value)
    return _text(value)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
