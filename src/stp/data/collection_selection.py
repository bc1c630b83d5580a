"""Which rows of a collection were selected."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Selection:
    """Which rows of a collection were selected.

    Parameters
    ----------
    digest
        Digest of the collection that the rows were selected from.
    where
        Values that the rows have in each column, one of them each.
    """

    digest: str
    where: Mapping[str, tuple[Hashable, ...]]

    def add(self, where: Mapping[str, tuple[Hashable, ...]]) -> Self:
        """Return the selection of the rows that also have these values."""
        both = dict(self.where)
        for column, values in where.items():
            before = both.get(column, values)
            both[column] = tuple(value for value in values if value in before)
        return replace(self, where=both)


def require_all_of(n_stores: int, former: "pd.DataFrame", file: str) -> None:
    """Raise ValueError if a file would lose stores that a selection lacks."""
    if len(former) > n_stores:
        raise ValueError(
            f"this is a selection of {n_stores} of the {len(former)} stores of {file}; write "
            "it to another file, or change the whole collection"
        )
