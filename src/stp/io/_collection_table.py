"""Write the table of a collection: parquet for training, CSV for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp._atomic import write_atomically
from stp._csv_cells import quote_formulas
from stp.data.collection import FILE
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

    lines = [
        {"name": row.name, "path": f"{row.name}.zarr", **row.metadata, **measures[row.name]}
        for row in rows
    ]
    if not lines:
        return pd.DataFrame(columns=["name", "path", *METADATA, *MEASURES, "problem"], dtype=str)
    return pd.DataFrame(lines)


def write_table(table: "pd.DataFrame", folder: Path) -> None:
    """Write `collection.parquet` and `collection.csv` into a folder, each whole or not at all."""
    file = folder / FILE
    write_atomically(file, lambda path: table.to_parquet(path, index=False))
    readable = quote_formulas(table)
    write_atomically(
        file.with_suffix(".csv"), lambda path: readable.to_csv(path, index=False, encoding="utf-8")
    )
