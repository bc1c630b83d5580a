"""Names that SpatialData can store."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stp._log import warn

if TYPE_CHECKING:
    from anndata import AnnData

SLOTS = ("obs", "var", "obsm", "obsp", "varm", "varp", "uns", "layers")


def valid_name(name: str) -> str:
    """Return a name with letters, digits, "_", "." and "-" only, as SpatialData needs it."""
    cleaned = re.sub(r"[^\w.-]+", "_", str(name)).strip("_") or "unnamed"
    return cleaned if cleaned not in (".", "..") else "unnamed"


def rename_invalid_keys(adata: "AnnData") -> None:
    """Rename keys of a table that SpatialData cannot store; a warning lists old and new names.

    SpatialData refuses names with characters other than letters, digits, "_", "." and "-", names
    that begin with "__", a column `_index`, and names that differ only in upper and lower case.
    """
    changes = []
    for slot in SLOTS:
        new_names = _new_names(getattr(adata, slot).keys(), is_frame=slot in ("obs", "var"))
        if not new_names:
            continue
        _rename(adata, slot, new_names)
        changes += [f"{slot}[{old!r}] to {new!r}" for old, new in new_names.items()]
    if changes:
        warn(f"names that SpatialData cannot store were changed: {', '.join(changes)}")


def join_lists(adata: "AnnData") -> None:
    """Write lists in columns of `obs` and `var` as text; a warning names the columns."""
    columns = []
    for slot in ("obs", "var"):
        frame = getattr(adata, slot)
        for name in frame:
            if frame[name].dtype == object and frame[name].map(_is_list).any():
                frame[name] = [_join(value) for value in frame[name]]
                columns.append(f"{slot}[{name!r}]")
    if columns:
        warn(f"lists were written as text, with commas between values: {', '.join(columns)}")


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set) or type(value).__name__ == "ndarray"


def _join(value: object) -> object:
    if isinstance(value, Iterable) and _is_list(value):
        return ", ".join(str(item) for item in value)
    return value


def _new_names(names: Iterable[str], is_frame: bool) -> dict[str, str]:
    """Map names that are not allowed to new ones; the first of several similar names stays."""
    names = list(names)
    new_names = {}
    used = set()
    for name in names:
        is_valid = valid_name(name) == name and not name.startswith("__")
        is_valid = is_valid and not (is_frame and name == "_index")
        if is_valid and name.lower() not in used:
            used.add(name.lower())
        else:
            new_names[name] = ""
    taken = used | {str(name).lower() for name in names if name not in new_names}
    for name in new_names:
        base = valid_name(name)
        candidate = base
        number = 1
        while candidate.lower() in taken:
            candidate = f"{base}_{number}"
            number += 1
        taken.add(candidate.lower())
        new_names[name] = candidate
    return new_names


def _rename(adata: "AnnData", slot: str, new_names: dict[str, str]) -> None:
    if slot in ("obs", "var"):
        setattr(adata, slot, getattr(adata, slot).rename(columns=new_names))
        return
    values = getattr(adata, slot)
    for old, new in new_names.items():
        values[new] = values.pop(old)
