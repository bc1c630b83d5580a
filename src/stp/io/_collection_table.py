"""The table of a collection that was prepared from a manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import count, logger
from stp.data.collection import SPLIT
from stp.data.collection_file import FILE, read_table
from stp.data.column_values import has_value
from stp.io._manifest_columns import METADATA, ManifestRow
from stp.io._store_measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd


def collection_table(
    rows: Sequence[ManifestRow], measures: Mapping[str, Mapping[str, object]]
) -> "pd.DataFrame":
    """Return the table of the rows that have a store.

    Parameters
    ----------
    rows
        Rows of a manifest whose store is finished.
    measures
        Measured columns of each row, by its name.
    """
    import pandas as pd

    lines = [_describe(row, measures[row.name]) for row in rows]
    if not lines:
        columns = dict.fromkeys(["name", "path", *METADATA, *MEASURES, "problem"])
        return pd.DataFrame(columns=list(columns), dtype=str)
    return pd.DataFrame(lines)


def keep_sides(table: "pd.DataFrame", folder: Path) -> "pd.DataFrame":
    """Return a table with the split of the former table of a folder, by the names of the rows."""
    file = folder / FILE
    if not file.exists():
        return table
    former = read_table(file)
    if SPLIT not in former:
        return table
    sides = former.set_index("name")[SPLIT]
    table = table.assign(**{SPLIT: table["name"].map(sides)})
    n_without = sum(not has_value(side) for side in table[SPLIT])
    if n_without:
        logger.warning(
            f"{count(n_without, 'store')} of {folder} have no side of the split yet; run `stp "
            "split --overwrite` again"
        )
    return table


def _describe(row: ManifestRow, measures: Mapping[str, object]) -> dict[str, object]:
    """Return the line of a store; the species of its genes fills a gap of the manifest."""
    line = {"name": row.name, "path": f"{row.name}.zarr", **row.metadata, **measures}
    if row.metadata.get("species"):
        line["species"] = row.metadata["species"]
    return line
