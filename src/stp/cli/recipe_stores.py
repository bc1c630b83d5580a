"""The stores of a recipe: paths, URLs, glob patterns, or a table with a collection."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from glob import escape
from pathlib import Path
from typing import Any

from stp._text import native
from stp._urls import as_url
from stp.data.collection import Collection
from stp.data.column_values import nearest

LISTS = ("stores", "validation")  # keys of a recipe that name stores


@dataclass(frozen=True, kw_only=True)
class CollectionRows:
    """Stores of a collection: all of them, or those that meet conditions.

    Parameters
    ----------
    collection
        Path or URL of the table of the collection, or of its folder.
    where
        Value, or list of values, that a store must have in each of these columns.
    split
        Side of the split, such as "train".
    """

    collection: str
    where: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None


StoreSource = tuple[str, ...] | CollectionRows


def check_collections(values: Mapping[str, Any]) -> None:
    """Raise ValueError if a table that names stores has unknown keys, or names no collection."""
    names = [entry.name for entry in fields(CollectionRows)]
    for key in LISTS:
        table = values.get(key)
        if not isinstance(table, Mapping):
            continue
        unknown = sorted(table.keys() - set(names))
        if unknown:
            near = nearest(unknown[0], names)
            raise ValueError(f"{key} has unknown keys {unknown}{near}; it knows {names}")
        if "collection" not in table:
            raise ValueError(
                f"{key} is a table without a collection; write "
                f'{key} = {{collection = "stores/collection.parquet"}}'
            )


def find_stores(folder: Path, source: StoreSource) -> list[Path | str] | Collection:
    """Return the stores that paths, URLs or glob patterns name, or those of a collection."""
    if isinstance(source, CollectionRows):
        path = native(source.collection)
        collection = Collection.read(path if as_url(path) is not None else folder / path)
        return collection.select(source.where, source.split).trainable()
    return [store for pattern in source for store in _match(folder, native(pattern))]


def _match(folder: Path, pattern: str) -> "list[Path] | list[str]":
    if as_url(pattern) is not None:
        return [pattern]
    if (folder / pattern).exists():
        return [folder / pattern]
    base = Path(escape(str(folder))) / pattern
    stores = sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
    if not stores:
        raise ValueError(f"no store matches {pattern!r} in {folder}")
    return stores
