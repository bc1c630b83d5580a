"""The table of a collection that was prepared from a manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import count, logger
from stp.data.collection import SPLIT
from stp.data.collection_file import read_cells
from stp.data.column_values import has_value
from stp.io._manifest_columns import METADATA, ManifestRow
from stp.io._store_measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd


def collection_table(
    rows: Sequence[ManifestRow],
    paths: Mapping[str, str],
    measures: Mapping[str, Mapping[str, object]],
) -> "pd.DataFrame":
    """Return the table of the rows that have a store.

    Parameters
    ----------
    rows
        Rows of a manifest whose store is finished.
    paths
        Path of the store of each row in the folder, by its name.
    measures
        Measured columns of each row, by its name.
    """
    import pandas as pd

    lines = [_describe(row, paths[row.name], measures[row.name]) for row in rows]
    if not lines:
        columns = dict.fromkeys(["name", "path", *METADATA, *MEASURES, "problem"])
        return pd.DataFrame(columns=list(columns), dtype=str)
    return pd.DataFrame(lines)


def keep_sides(table: "pd.DataFrame", file: Path, label: str) -> "pd.DataFrame":
    """Return a table with the split of a former table, by the names of the rows.

    Parameters
    ----------
    table
        The new table.
    file
        The former table; there may be none.
    label
        The folder of the collection, for messages.
    """
    if not file.exists():
        return table
    former = read_cells(file)
    if not {"name", SPLIT} <= {*former}:
        return table
    sides = former.drop_duplicates("name").set_index("name")[SPLIT]
    table = table.assign(**{SPLIT: table["name"].map(sides)})
    n_without = sum(not has_value(side) for side in table[SPLIT])
    if n_without:
        logger.warning(
            f"{count(n_without, 'store')} of {label} have no side of the split yet; run `stp "
            "split --overwrite` again"
        )
    return table


def _describe(row: ManifestRow, path: str, measures: Mapping[str, object]) -> dict[str, object]:
    """Return the line of a store; the species of its genes fills a gap of the manifest."""
    line = {"name": row.name, "path": path, **row.metadata, **measures}
    if row.metadata.get("species"):
        line["species"] = row.metadata["species"]
    return line
