"""Names that SpatialData can store."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stp._log import warn
from stp.tables import keys
from stp.tables.columns import convert_columns

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

FRAMES = ("obs", "var")
MAPPINGS = ("obsm", "obsp", "varm", "varp", "uns", "layers")


def make_storable(adata: "AnnData") -> None:
    """Rename keys and convert columns of a table that SpatialData cannot store; values stay."""
    rename_invalid_keys(adata)
    for slot in FRAMES:
        convert_columns(getattr(adata, slot), slot)


def is_valid_name(name: object) -> bool:
    """Return whether SpatialData can store an element, a column or a key under a name."""
    if not isinstance(name, str) or name in ("", ".", "..") or name.startswith("__"):
        return False
    return all(character.isalnum() or character in "_-." for character in name)


def valid_name(name: object) -> str:
    """Return a name with letters, digits, "_", "." and "-" only; a valid name stays as it is."""
    if is_valid_name(name):
        return str(name)
    # An accent that is a character after its letter becomes one letter with it.
    text = unicodedata.normalize("NFC", str(name))
    cleaned = re.sub(r"[^\w.-]+", "_", text).strip("_")
    return cleaned if is_valid_name(cleaned) else "unnamed"


def unique_names(
    names: Sequence[object],
    reserved: Sequence[str] = (),
    is_valid: Callable[[object], bool] = is_valid_name,
) -> list[str]:
    """Return a valid name for each name; none are equal, even without upper and lower case.

    Valid names stay. Of those that differ only in case, the one in lower case stays, because our
    own names are in lower case.

    Parameters
    ----------
    names
        Names of any kind, in the order in which they get numbers if they become equal.
    reserved
        Names that none of them may get.
    is_valid
        Function that tells which names may stay.
    """
    taken = {name.lower() for name in reserved}
    new_names = [""] * len(names)
    valid = [position for position, name in enumerate(names) if is_valid(name)]
    for position in sorted(valid, key=lambda index: str(names[index]) != str(names[index]).lower()):
        text = str(names[position])
        if text.lower() not in taken:
            taken.add(text.lower())
            new_names[position] = text
    for position, name in enumerate(names):
        if not new_names[position]:
            new_names[position] = _next_free(valid_name(name), taken)
            taken.add(new_names[position].lower())
    return new_names


def rename_invalid_keys(adata: "AnnData") -> None:
    """Rename keys of a table that SpatialData cannot store; a warning lists old and new names.

    SpatialData refuses names with characters other than letters, digits, "_", "." and "-", names
    that begin with "__", a column `_index`, and names that differ only in upper and lower case.
    """
    changes = []
    for slot in FRAMES:
        reserved = []
        if slot == "obs":
            # These columns, which name the shape of each row, are added later.
            reserved = [key for key in (keys.REGION, keys.SPOT) if key not in adata.obs]
        frame, new_names = rename_columns(getattr(adata, slot), _is_valid_column, reserved)
        setattr(adata, slot, frame)
        changes += _describe(slot, new_names)
        if slot == "obs":
            changes += _rename_colors(adata.uns, new_names)
    for slot in MAPPINGS:
        mapping = getattr(adata, slot)
        changes += _describe(slot, _rename_keys(mapping, is_valid_name))
        for key, value in mapping.items():
            changes += _rename_inside(mapping, key, value, f"{slot}[{key!r}]")
    changes += _rename_raw(adata)
    if changes:
        warn(f"names that SpatialData cannot store were changed: {', '.join(changes)}")


def rename_columns(
    frame: "pd.DataFrame", is_valid: Callable[[object], bool], reserved: Sequence[str] = ()
) -> tuple["pd.DataFrame", list[tuple[object, str]]]:
    """Return a frame with valid column names and index name, and the pairs of old and new names."""
    names = list(frame.columns)
    index_name = frame.index.name
    has_index_name = index_name not in (None, "_index")
    if has_index_name:
        names.append(index_name)
    new_names = unique_names(names, reserved, is_valid)
    pairs = [(old, new) for old, new in zip(names, new_names, strict=True) if old != new]
    if pairs:
        frame = frame.copy()
        frame.columns = new_names[: frame.shape[1]]
        frame.index.name = new_names[-1] if has_index_name else index_name
    return frame, pairs


def _is_valid_column(name: object) -> bool:
    return is_valid_name(name) and name != "_index"


def _is_valid_inside(name: object) -> bool:
    """Return whether AnnData can store a name inside of an entry, where SpatialData checks none."""
    return isinstance(name, str) and name not in ("", "_index") and "/" not in name


def _next_free(base: str, taken: set[str]) -> str:
    """Return a name, with the first number that makes it differ from all names taken."""
    # `_index` is valid for all but a column.
    base = "index" if base == "_index" else base
    candidate = base
    number = 1
    while candidate.lower() in taken:
        candidate = f"{base}_{number}"
        number += 1
    return candidate


def _rename_keys(
    mapping: Any, is_valid: Callable[[object], bool], reserved: Sequence[str] = ()
) -> list[tuple[object, str]]:
    """Rename the keys of a mapping in place; return the pairs of old and new names."""
    names = list(mapping)
    new_names = unique_names(names, reserved, is_valid)
    pairs = [(old, new) for old, new in zip(names, new_names, strict=True) if old != new]
    for old, new in pairs:
        mapping[new] = mapping.pop(old)
    return pairs


def _rename_inside(mapping: Any, key: str, value: Any, place: str) -> list[str]:
    """Rename the columns of a frame, or the keys of a dictionary in `uns`, and those in them."""
    if hasattr(value, "columns"):
        frame, pairs = _rename_only_unstorable_columns(value)
        if pairs:
            mapping[key] = frame
        return _describe(place, pairs)
    if not isinstance(value, dict):
        return []
    # Names that differ only in case may stay here.
    changes = []
    if not all(_is_valid_inside(name) for name in value):
        changes = _describe(place, _rename_keys(value, _is_valid_inside))
    for inner_key, inner in list(value.items()):
        changes += _rename_inside(value, inner_key, inner, f"{place}[{inner_key!r}]")
    return changes


def _rename_only_unstorable_columns(
    frame: "pd.DataFrame",
) -> tuple["pd.DataFrame", list[tuple[object, str]]]:
    if all(_is_valid_inside(name) for name in frame.columns) and frame.columns.is_unique:
        return frame, []
    return rename_columns(frame, _is_valid_inside)


def _rename_colors(uns: Any, new_names: Sequence[tuple[object, str]]) -> list[str]:
    """Rename the colors of columns as the columns are renamed."""
    changes = []
    for old, new in new_names:
        key = f"{old}_colors"
        if key in uns and f"{new}_colors" not in uns:
            uns[f"{new}_colors"] = uns.pop(key)
            changes.append(f"uns[{key!r}] to '{new}_colors'")
    return changes


def _rename_raw(adata: "AnnData") -> list[str]:
    """Rename the columns of `raw.var` that AnnData cannot store."""
    if adata.raw is None:
        return []
    frame, pairs = _rename_only_unstorable_columns(adata.raw.var)
    if pairs:
        raw = adata.raw.to_adata()
        raw.var = frame
        adata.raw = raw
    return _describe("raw.var", pairs)


def _describe(slot: str, new_names: Sequence[tuple[object, str]]) -> list[str]:
    return [f"{slot}[{old!r}] to {new!r}" for old, new in new_names]
