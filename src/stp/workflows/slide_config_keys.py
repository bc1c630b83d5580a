"""The keys that the tables of a study may have, and what is wrong with those of a file."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from stp.data.column_values import nearest
from stp.train.slide_config import SlideConfig
from stp.workflows.slide_tables import NEEDED, TABLES


def table_keys(name: str) -> list[str]:
    """Return the keys that a table of the file may have."""
    names = [field.name for field in dataclasses.fields(TABLES[name]) if field.name != "config"]
    if name == "fit":
        return names + [field.name for field in dataclasses.fields(SlideConfig)]
    return names


def list_key_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the keys of the file."""
    for name in values:
        if name not in TABLES and name != "output_dir":
            yield f"{name!r} is no table or key{_advice(name, ['output_dir', *TABLES])}"
    for name in NEEDED:
        if name not in values:
            example = 'output_dir = "runs/first"' if name == "output_dir" else "a table [cohort]"
            yield f"it lacks {name}; write {example}"
    for name in TABLES:
        if name not in values:
            continue
        title = "[[target]]" if name == "target" else f"[{name}]"
        items = values[name] if name == "target" else [values[name]]
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            yield f"{name} must be a table; write {title} on a line"
            continue
        for item in items:
            yield from _list_table_faults(name, title, item)


def _list_table_faults(name: str, title: str, item: Mapping[str, Any]) -> Iterator[str]:
    names = table_keys(name)
    for key in item:
        if key not in names:
            yield f"{title} has no key {key!r}{_advice(key, names)}"
    for field in dataclasses.fields(TABLES[name]):
        has_default = field.default is not dataclasses.MISSING
        if not has_default and field.name not in item:
            yield f"{title} lacks {field.name}; `stp slides init` writes an example"


def _advice(key: str, names: list[str]) -> str:
    """Return where an unknown key belongs, or the nearest known key, or all keys."""
    others = [table for table in TABLES if key in table_keys(table) and key not in names]
    if others:
        return f"; it belongs to [{others[0]}]"
    return nearest(key, names) or f"; it may have {', '.join(names)}"
