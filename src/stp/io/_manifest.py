"""The manifest of a collection: a table with one row per slide, checked before any work."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp.io._manifest_columns import (
    ARGUMENTS,
    ARGUMENTS_OF,
    COLUMNS,
    METADATA,
    NAMES,
    NUMBERS,
    PLATFORM_OF,
    VISIUM_HD,
    ManifestRow,
    list_column_faults,
    name_fault,
    read_number,
    read_whole_number,
)
from stp.io._manifest_file import as_text, read_cells
from stp.io._manifest_kind import recognize_kind

if TYPE_CHECKING:
    import pandas as pd

Cells = dict[str, object]


def read_manifest(manifest: "str | Path | pd.DataFrame") -> tuple[list[ManifestRow], list[str]]:
    """Return the rows of a manifest, and all that is wrong with it, one sentence each.

    Parameters
    ----------
    manifest
        CSV, TSV or parquet file, or a DataFrame.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file cannot be read at all.
    """
    cells = read_cells(manifest)
    faults = cells.faults + list_column_faults(cells.columns)
    if not cells.rows:
        faults.append("the manifest has no rows, so there is nothing to prepare")
    if faults and not {"name", "path"} <= set(cells.columns):
        return [], faults
    further = [column for column in cells.columns if column not in COLUMNS]
    items = [dict(zip(cells.columns, row, strict=True)) for row in cells.rows]
    _make_texts(items, further)
    names = [as_text(item["name"]) if item["name"] is not None else "" for item in items]
    faults += _list_name_faults(names)
    rows = []
    for number, (name, item) in enumerate(zip(names, items, strict=True), 1):
        row, row_faults = _read_row(name, item, further, cells.folder)
        label = f"row {number} ({name})" if name else f"row {number}"
        faults += [f"{label}: {fault}" for fault in row_faults]
        if row is not None:
            rows.append(row)
    return rows, faults


def raise_faults(faults: Sequence[str]) -> None:
    """Raise one ValueError that lists all faults, if there are any."""
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        listed = "\n".join(f"- {fault}" for fault in faults)
        raise ValueError(f"nothing was prepared, because of {len(faults)} faults:\n{listed}")


def folded_name(name: str) -> str:
    """Return a name as file systems compare it that ignore case and the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _make_texts(items: list[Cells], further: Sequence[str]) -> None:
    """Make texts of further columns whose cells are of several types, which no file can hold."""
    for column in further:
        types = {type(item[column]) for item in items if item[column] is not None}
        if not types <= {int, float} and types != {bool}:
            for item in items:
                item[column] = "" if item[column] is None else as_text(item[column])


def _list_name_faults(names: Sequence[str]) -> list[str]:
    """List names that two rows have, or that file systems may take for one."""
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        if name:
            numbers.setdefault(folded_name(name), []).append(number)
    faults = []
    for rows in numbers.values():
        if len(rows) > 1:
            texts = list(dict.fromkeys(names[number - 1] for number in rows))
            listed = " and ".join(map(str, rows))
            same = f"the name {texts[0]!r}"
            if len(texts) > 1:
                same = f"names that many file systems take for one, {' and '.join(texts)}"
            faults.append(f"rows {listed} have {same}; give each row another name")
    return faults


def _read_row(
    name: str, cells: Cells, further: Sequence[str], folder: Path
) -> tuple[ManifestRow | None, list[str]]:
    """Return a row, or None if something is wrong, and all that is wrong."""
    fault = name_fault(name)
    faults = [fault] if fault else []
    path = _read_path(cells["path"], "path", folder, faults)
    image = None
    if cells.get("image") is not None:
        image = _read_path(cells["image"], "image", folder, faults)
    numbers = _read_numbers(cells, faults)
    names = {key: as_text(cells[key]) for key in NAMES if cells.get(key) is not None}
    kind = None
    if path is not None:
        try:
            kind = recognize_kind(path)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if image is not None and not image.exists():
        faults.append(f"there is no image {image}")
    if kind is not None:
        faults += _list_argument_faults(kind, cells)
    if kind is None or path is None or faults:
        return None, faults
    metadata: Cells = dict.fromkeys(METADATA, "")
    metadata |= {key: as_text(cells[key]) for key in METADATA if cells.get(key) is not None}
    metadata["platform"] = metadata["platform"] or PLATFORM_OF.get(kind, "")
    metadata |= {column: cells[column] for column in further}
    row = ManifestRow(
        name=name,
        kind=kind,
        path=path,
        image=image,
        um_per_px=numbers.get("um_per_px"),
        spot_pitch_um=numbers.get("spot_pitch_um"),
        patch_um_per_px=numbers.get("patch_um_per_px"),
        bin_um=int(numbers["bin_um"]) if "bin_um" in numbers else None,
        library_key=names.get("library_key"),
        library=names.get("library"),
        layer=names.get("layer"),
        gene_ids_key=names.get("gene_ids_key"),
        image_key=names.get("image_key"),
        coordinate_system=names.get("coordinate_system"),
        table_key=names.get("table_key"),
        metadata=metadata,
    )
    return row, []


def _read_path(cell: object, column: str, folder: Path, faults: list[str]) -> Path | None:
    """Return the path in a cell; add what is wrong to the faults."""
    if cell is None:
        faults.append(f"it has no {column}; write one into the column {column!r}")
        return None
    text = as_text(cell)
    if "://" in text:
        faults.append(f"{column} {text.partition('://')[0]}://... is remote; download it first")
        return None
    return folder / Path(text).expanduser()


def _read_numbers(cells: Cells, faults: list[str]) -> dict[str, float]:
    """Return the numbers of a row; add what is wrong to the faults."""
    numbers = {}
    for column in NUMBERS:
        if cells.get(column) is not None:
            read = read_whole_number if column == "bin_um" else read_number
            try:
                numbers[column] = read(cells[column])
            except ValueError as error:
                faults.append(f"{column} {error}")
    return numbers


def _list_argument_faults(kind: str, cells: Cells) -> list[str]:
    """List the columns with a value that a kind of source does not take, or that it lacks."""
    allowed = (*ARGUMENTS_OF[kind], "patch_um_per_px")
    faults = [
        f"the kind {kind!r} takes no {column}; leave {column} empty, or check path"
        for column in ARGUMENTS
        if cells.get(column) is not None and column not in allowed
    ]
    if kind == VISIUM_HD and cells.get("bin_um") is None:
        faults.append("a Visium HD folder needs bin_um, the side of its bins in µm, such as 8")
    if cells.get("library") is not None and cells.get("library_key") is None:
        faults.append("library needs library_key, the column of obs with the libraries")
    return faults
