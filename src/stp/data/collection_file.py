"""The files of a collection: a parquet file, and the same table as CSV."""

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._atomic import write_atomically
from stp._log import preview
from stp._urls import join_url, without_secrets
from stp.data.column_values import has_value

if TYPE_CHECKING:
    import pandas as pd

FILE = "collection.parquet"
CSV_FILE = "collection.csv"
ENDINGS = (".parquet", ".csv")
WRITERS = "stp.io.write_collection or `stp prepare` writes one"
REQUIRED = ("name", "path", "digest")
# Columns of CSV files that stay text, even if they look like numbers; so do those whose
# name ends in "id" or "digest".
TEXT = (*REQUIRED, "patient", "problem", "split", "source", "license", "library_key")
# A spreadsheet would run such a cell as a formula, so it is written after a quote.
FORMULA = re.compile(r"'*\s*[=+\-@]")
QUOTED = re.compile(r"'+\s*[=+\-@]")
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
TRUTH = {"True": True, "False": False}


def find_file(path: Path) -> Path:
    """Return the file of a collection: the path itself, or a file in the folder."""
    if path.is_dir():
        for name in (FILE, CSV_FILE):
            if (path / name).exists():
                return path / name
        raise FileNotFoundError(f"there is no {FILE} in {path}; {WRITERS}")
    if not path.exists():
        raise FileNotFoundError(f"there is no collection at {path}; {WRITERS}")
    return path


def read_table(file: Path, folder: Path | str | None = None) -> "pd.DataFrame":
    """Read and check the table of a collection.

    Parameters
    ----------
    file
        The file.
    folder
        Path or URL of the folder that the paths in the table are relative to; by default that of
        the file.

    Raises
    ------
    ValueError
        The file is neither parquet nor CSV, or the table has faults; the error lists all of them.
    """
    table = read_cells(file)
    folder = file.absolute().parent if folder is None else folder
    faults = _list_faults(table, folder)
    label = file if isinstance(folder, Path) else without_secrets(join_url(folder, file.name))
    if len(faults) == 1:
        raise ValueError(f"{label} is no collection: {faults[0]}")
    if faults:
        lines = "\n- ".join(faults)
        raise ValueError(f"{label} is no collection, because of {len(faults)} faults:\n- {lines}")
    return table.reset_index(drop=True).astype(dict.fromkeys(REQUIRED, object))


def read_cells(file: Path) -> "pd.DataFrame":
    """Read a parquet or CSV file, and check nothing else.

    Raises
    ------
    ValueError
        The file is neither parquet nor CSV.
    """
    import pandas as pd

    ending = file.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"{file} is no collection; give a .parquet or .csv file, or the folder that has one"
        )
    try:
        if ending == ".csv":
            return _read_csv(file)
        with file.open("rb") as stream:
            return pd.read_parquet(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read as {ending[1:]}: {error}") from error


def write_table(table: "pd.DataFrame", file: Path) -> None:
    """Write a table as parquet and as CSV, each of which replaces its former file at once."""

    def write_parquet(path: Path) -> None:
        with path.open("wb") as stream:
            table.to_parquet(stream, index=False)

    text = csv_text(table)
    write_atomically(file.with_suffix(".parquet"), write_parquet)
    write_atomically(
        file.with_suffix(".csv"), lambda path: path.write_text(text, encoding="utf-8", newline="")
    )


def csv_text(table: "pd.DataFrame") -> str:
    """Return a table as CSV in which no cell is a formula."""
    quoted = table.rename(columns=_quote)
    for position, (_, column) in enumerate(table.items()):
        cells = column.astype(object)  # also of categories
        if cells.map(lambda cell: isinstance(cell, str)).any():
            quoted.isetitem(position, cells.map(_quote))
    return quoted.to_csv(index=False, lineterminator="\n", encoding="utf-8")


def _read_csv(file: Path) -> "pd.DataFrame":
    """Read a CSV file; a column of numbers or truth values gets their type, others stay text."""
    import pandas as pd

    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("it is empty")
    header = [_unquote(name) for name in rows[0]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"columns repeat: {repeated}")
    wrong = [str(number) for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if wrong:
        raise ValueError(
            f"the header has {len(header)} columns, and these rows have another number of cells: "
            f"{preview(wrong)}"
        )
    columns = {
        name: _convert(name, [_unquote(row[position]) for row in rows[1:]])
        for position, name in enumerate(header)
    }
    return pd.DataFrame(columns)


def _quote(cell: Any) -> Any:
    is_formula = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _unquote(cell: str) -> str:
    return cell[1:] if QUOTED.match(cell) else cell


def _convert(name: str, cells: list[str]) -> "pd.Series":
    """Return the cells of a column as numbers or truth values if all of them are."""
    import pandas as pd

    values = [cell for cell in cells if cell]
    is_complete = len(values) == len(cells)
    if name in TEXT or name.lower().endswith(("id", "digest")) or not values:
        return pd.Series(cells, dtype=object)
    if all(cell in TRUTH for cell in values):
        return pd.Series([TRUTH.get(cell) for cell in cells], dtype=bool if is_complete else object)
    if is_complete and all(map(WHOLE.fullmatch, values)):
        return pd.Series([int(cell) for cell in cells], dtype="int64")
    if all(map(NUMBER.fullmatch, values)):
        return pd.Series([float(cell or "nan") for cell in cells], dtype="float64")
    return pd.Series(cells, dtype=object)


def _list_faults(table: "pd.DataFrame", folder: Path | str) -> list[str]:
    """List what is wrong with the table of a collection."""
    lacking = [column for column in REQUIRED if column not in table]
    if lacking:
        return [f"it lacks the columns {lacking}; it has {[str(name) for name in table]}"]
    if table.empty:
        return ["it has no rows"]
    faults = []
    for column in REQUIRED:
        rows = [number for number, cell in enumerate(table[column], 1) if not _is_text(cell)]
        if rows:
            faults.append(f"{column!r} is missing or no text in row {preview(rows)}")
    for column in ("name", "path"):
        values = table[column]
        repeated = sorted({str(value) for value in values[values.duplicated()] if _is_text(value)})
        if repeated:
            faults.append(f"several rows have the {column} {preview(repeated, 10)}")
    missing = [path for path in table["path"] if _is_text(path) and not _exists(folder, path)]
    if missing:
        faults.append(f"there is no store at {preview(missing, 10)} in {folder}")
    return faults


def _is_text(cell: object) -> bool:
    return isinstance(cell, str) and has_value(cell)


def _exists(folder: Path | str, path: str) -> bool:
    """Return whether a store exists; whether a URL does is known when it is read."""
    return "://" in path or isinstance(folder, str) or (folder / path).exists()
