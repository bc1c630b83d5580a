"""Read the tables of a cohort from files or a DataFrame, with ids as text."""

import csv
import gzip
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._extras import import_extra
from stp._log import preview
from stp.tables.cohort import id_text

if TYPE_CHECKING:
    import pandas as pd

# "None" is not among them: it is a class of some columns, such as that of a drug.
MISSING_TEXTS = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "<NA>", "NULL", "null"]
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
OTHER_SUFFIXES = (".parquet", ".xlsx")


def read_table(source: Any, argument: str, id_keys: Iterable[str]) -> "pd.DataFrame":
    """Return a table, with those of the columns `id_keys` that it has as text.

    Ids in files are read as text, so "007" stays "007". A missing id is None.

    Parameters
    ----------
    source
        A DataFrame, or the path of a csv, tsv, parquet or xlsx file.
    argument
        Name of the argument in an error.
    id_keys
        Names of the columns with ids or paths.

    Raises
    ------
    TypeError
        The source is neither a path nor a DataFrame.
    FileNotFoundError
        There is no such file.
    ValueError
        The file cannot be read as a table, or names of its columns repeat.
    """
    import pandas as pd

    id_keys = list(id_keys)
    if isinstance(source, pd.DataFrame):
        frame = source.copy()
        if frame.index.name in id_keys and frame.index.name not in frame:
            frame = frame.reset_index()
    elif isinstance(source, str | Path):
        frame = _read_file(Path(source), id_keys)
    else:
        raise TypeError(
            f"{argument} is a {type(source).__name__}; pass a DataFrame or the path of a table"
        )
    frame.columns = [str(name).strip() for name in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"columns of {argument}= repeat: {preview(repeated)}; give each a name that is unique"
        )
    for key in id_keys:
        if key in frame:
            frame[key] = frame[key].astype(object).map(id_text).astype(object)
    return frame.reset_index(drop=True)


def _read_file(path: Path, id_keys: list[str]) -> "pd.DataFrame":
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in (*SEPARATORS, *OTHER_SUFFIXES):
        raise ValueError(
            f"{path} is no table that can be read: save it as csv, tsv, parquet or xlsx, or pass "
            "a DataFrame"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no table at {path}; check the path")
    if suffix == ".xlsx":
        return _read_excel(path, id_keys)
    if suffix == ".parquet":
        return _read_parquet(path)
    return _read_text(path, SEPARATORS[suffix], id_keys)


def _read_text(path: Path, separator: str, id_keys: list[str]) -> "pd.DataFrame":
    import pandas as pd

    try:
        header = _read_header(path, separator)
        _check_header(path, header, separator)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=dict.fromkeys(id_keys, str),
                encoding="utf-8-sig",
                index_col=False,
                keep_default_na=False,
                na_values=MISSING_TEXTS,
                dtype_backend="numpy_nullable",
            )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error.reason}); save it with this encoding"
        ) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(
            f"{path} cannot be read as a table ({str(error).strip()}); each line needs a value "
            "for each column of the first line"
        ) from error
    return _plain(_drop_unnamed(path, frame, header))


def _read_header(path: Path, separator: str) -> list[str]:
    """Return the names of the columns; pandas would number those that repeat."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file, delimiter=separator), [])


def _check_header(path: Path, header: list[str], separator: str) -> None:
    """Raise ValueError if the columns are separated by another character, or names repeat."""
    others = [other for other in ",;\t" if other != separator and other in "".join(header)]
    if len(header) == 1 and others:
        raise ValueError(
            f"the columns of {path} are separated by {others[0]!r}, expected {separator!r}; save "
            f"it so, or pass the result of pandas.read_csv({path.name!r}, sep={others[0]!r}, ...)"
        )
    _check_names(path, header)


def _check_names(path: Path, header: list[str]) -> None:
    names = [name.strip() for name in header]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"columns of {path} repeat: {preview(repeated)}; give each a name that is unique"
        )


def _drop_unnamed(path: Path, frame: "pd.DataFrame", header: list[str]) -> "pd.DataFrame":
    """Return a table without the index that pandas writes first, and without empty columns."""
    numbers = [number for number, name in enumerate(header) if not name.strip()]
    for number in numbers:
        if number and frame.iloc[:, number].notna().any():
            raise ValueError(f"column {number + 1} of {path} has no name; give it one")
    return frame.drop(columns=frame.columns[numbers])


def _read_excel(path: Path, id_keys: list[str]) -> "pd.DataFrame":
    import pandas as pd

    import_extra("openpyxl")
    with pd.ExcelFile(path, engine="openpyxl") as book:
        if len(book.sheet_names) > 1:
            raise ValueError(
                f"{path} has {len(book.sheet_names)} sheets: {preview(book.sheet_names)}; pass the "
                f"result of pandas.read_excel({path.name!r}, sheet_name=..., dtype=str)"
            )
        first = book.parse(header=None, nrows=1, dtype=str).fillna("")
        header = [str(name) for name in first.iloc[0]] if len(first) else []
        _check_names(path, header)
        frame = book.parse(
            dtype=dict.fromkeys(id_keys, str),
            keep_default_na=False,
            na_values=MISSING_TEXTS,
            dtype_backend="numpy_nullable",
        )
    return _plain(_drop_unnamed(path, frame, header))


def _read_parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.read_parquet(path)
    return frame if frame.index.name is None else frame.reset_index()


def _plain(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table whose columns have the types of NumPy, unless whole numbers are missing.

    Text has no spaces around it, which would make another class of a label. Empty rows are left
    out.
    """
    import pandas as pd

    frame = frame.dropna(how="all")
    for name in frame:
        column = frame[name]
        if isinstance(column.dtype, pd.StringDtype):
            texts = column.str.strip().astype(object)
            frame[name] = texts.where(texts.notna() & (texts != ""), None)
        elif isinstance(column.dtype, pd.Float64Dtype):
            frame[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        elif column.notna().all() and len(column):
            frame[name] = column.to_numpy()
    return frame
