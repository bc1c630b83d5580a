"""Collections: a table that describes training stores, one row each."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import pandas as pd

FILE = "collection.parquet"
REQUIRED = ("name", "path", "digest")
SPLIT = "split"  # column of `stp.tl.assign_split`
PROBLEM = "problem"  # why a store cannot be trained on; empty if it can
Condition = object | Sequence[object]


@dataclass(frozen=True, eq=False)
class Collection:
    """Training stores with a table that describes them.

    Iterating over a collection yields the paths of its stores, so it can be passed wherever a list
    of stores can.

    Parameters
    ----------
    table
        One row per store; `io.write_collection` describes the columns.
    folder
        Folder that the paths in the table are relative to.
    """

    table: "pd.DataFrame"
    folder: Path

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str | Path]:
        for path in self.table["path"]:
            yield path if "://" in path else self.folder / path

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of names and digests of the stores, in their order."""
        lines = self.table["name"] + " " + self.table["digest"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def select(
        self, where: Mapping[str, Condition] | None = None, split: str | None = None
    ) -> Self:
        """Return the rows that have these values.

        Parameters
        ----------
        where
            Value, or list of values, that a row must have in each of these columns.
        split
            Value of the column "split", such as "train".

        Returns
        -------
        A collection of the rows that meet all conditions.

        Raises
        ------
        ValueError
            A column is missing, or no row meets the conditions.
        """
        conditions = dict(where or {})
        if split is not None:
            conditions[SPLIT] = split
        table = self.table
        for column, values in conditions.items():
            if column not in self.table:
                raise ValueError(
                    f"the collection has no column {column!r}; it has {list(self.table)}"
                )
            is_list = isinstance(values, Sequence) and not isinstance(values, str)
            wanted = list(values) if is_list else [values]
            table = table[table[column].isin(wanted)]
        if table.empty:
            raise ValueError(f"no store of the collection has {conditions}")
        return type(self)(table.reset_index(drop=True), self.folder)
