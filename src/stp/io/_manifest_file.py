"""The cells of a manifest: from a CSV, TSV or parquet file, or a DataFrame."""

import csv
import datetime
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class ManifestCells:
    """The cells of a manifest; an empty one is None."""

    columns: list[str]
    rows: list[list[object]]
    folder: Path  # that paths are relative to
    faults: list[str]  # of rows that cannot be read


def read_cells(manifest: "str | Path | pd.DataFrame") -> ManifestCells:
    """Return the cells of a manifest.

    Parameters
    ----------
    manifest
        CSV, TSV or parquet file, or a DataFrame.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is of another format, or it cannot be read.
    """
    import pandas as pd

    if isinstance(manifest, pd.DataFrame):
        return _from_frame(manifest, Path.cwd())
    path = Path(manifest)
    suffix = path.suffix.lower()
    if suffix not in (*DELIMITERS, ".parquet"):
        raise ValueError(f"{path} is no manifest; give a .csv, .tsv or .parquet file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no manifest at {path}")
    folder = path.absolute().parent
    if suffix != ".parquet":
        return _from_text(path, DELIMITERS[suffix], folder)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as parquet ({error}); write it again") from error
    return _from_frame(frame, folder)


def as_text(cell: object) -> str:
    """Return a cell as text; a whole number has no point, because a table may have made it one."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell)


def _from_text(path: Path, delimiter: str, folder: Path) -> ManifestCells:
    """Read a text file, whose cells are all texts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
    except UnicodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read ({error}); check its quotes") from error
    lines = [[cell.strip() for cell in line] for line in lines]
    lines = [line for line in lines if any(line)]
    if not lines:
        raise ValueError(f"{path} is empty; its first line names the columns")
    header = lines[0]
    other = next((mark for mark in (";", "\t", ",") if mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise ValueError(
            f"the columns of {path} are separated by {other!r}, not by {delimiter!r}; save it as "
            "CSV with commas, or as .tsv with tabs"
        )
    while header and not header[-1] and not any("".join(line[len(header) - 1 :]) for line in lines):
        header.pop()  # empty columns at the end, which spreadsheets write
    faults = [f"column {i + 1} has no name" for i, name in enumerate(header) if not name]
    rows = []
    for number, line in enumerate(lines[1:], 1):
        if any(line[len(header) :]) or len(line) < len(header):
            faults.append(
                f"row {number} has {len(line)} cells, the first line has {len(header)}; put texts "
                "with a delimiter into quotes"
            )
        cells: list[object] = [cell or None for cell in line[: len(header)]]
        rows.append(cells + [None] * (len(header) - len(cells)))
    return ManifestCells(header, rows, folder, faults)


def _from_frame(frame: "pd.DataFrame", folder: Path) -> ManifestCells:
    """Return the cells of a DataFrame, whose further columns keep their numbers."""
    faults = []
    rows: list[list[object]] = []
    for number, values in enumerate(frame.itertuples(index=False, name=None), 1):
        cells = []
        for column, value in zip(frame.columns, values, strict=True):
            try:
                cells.append(_plain_cell(value))
            except TypeError:
                faults.append(
                    f"row {number}: {column} is of the type {type(value).__name__}; write a text "
                    "or a number"
                )
                cells.append(None)
        rows.append(cells)
    return ManifestCells([str(column).strip() for column in frame.columns], rows, folder, faults)


def _plain_cell(value: object) -> object:
    """Return a value as text, number or bool of Python, and None if it is missing.

    Raises
    ------
    TypeError
        It is of another type.
    """
    import pandas as pd

    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{type(value).__name__} is no cell of a manifest")
