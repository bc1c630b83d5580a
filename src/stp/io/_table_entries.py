"""Replace entries of a table on disk, all of them or none.

New entries are written into a scratch folder next to the store. Then entries move between the
table and that folder. A journal in the folder says how to move them back.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._atomic import write_atomically
from stp._log import AUTOSHARDING, silence

if TYPE_CHECKING:
    from anndata import AnnData

SLOTS = ("obsm", "obs", "uns")  # in the order in which their entries are put in place
JOURNAL = "journal.json"


class Entry(NamedTuple):
    """An entry of a table."""

    slot: str
    key: str

    def below(self, folder: Path) -> Path:
        """Return the place of the entry in a folder that is laid out like the table."""
        return folder / self.slot / self.key


class Move(NamedTuple):
    """A step of writing: an entry enters or leaves the table at once."""

    source: Path
    target: Path

    def run(self) -> None:
        """Rename source to target, if there is a source."""
        if self.source.exists():
            self.source.rename(self.target)


def scratch_folder(store: Path) -> Path:
    """Return the folder in which new entries of a store are written."""
    return store.with_name(f".{store.name}.results")


def replace_entries(
    adata: "AnnData", new: list[Entry], removed: list[Entry], scratch: Path, table_folder: Path
) -> None:
    """Write new entries into `scratch`, move them into the table, and removed ones out of it.

    The order keeps the store readable at every step. An entry moves as a whole, because one that
    is half deleted would read as zeros. `uns` records how results were made: a record leaves
    before its results and enters after them, so no results have the record of others. A column
    is listed only while it is there.
    """
    import zarr

    table = zarr.open_group(table_folder, mode="r+", use_consolidated=False)
    _write_values(adata, new, scratch / "new", table.metadata.zarr_format)
    _make_slots(table, new)
    for slot in SLOTS:
        (scratch / "old" / slot).mkdir(parents=True)
    columns = column_order(table["obs"])
    changed = {*new, *removed}
    unchanged_columns = [name for name in columns if Entry("obs", name) not in changed]
    _write_journal(scratch, table_folder, new, columns, unchanged_columns)
    leave = {
        entry: Move(entry.below(table_folder), entry.below(scratch / "old")) for entry in changed
    }
    enter = {entry: Move(entry.below(scratch / "new"), entry.below(table_folder)) for entry in new}
    records = [entry for entry in (*new, *removed) if entry.slot == "uns"]
    moves = [leave[entry] for entry in (*records, *removed)]
    for entry in new:
        moves += [leave[entry], enter[entry]]
    _set_columns(table["obs"], unchanged_columns)
    for move in moves:
        move.run()
    remaining_columns = [name for name in columns if Entry("obs", name) not in removed]
    new_columns = [entry.key for entry in new if entry.slot == "obs"]
    _set_columns(table["obs"], list(dict.fromkeys([*remaining_columns, *new_columns])))
    (scratch / JOURNAL).unlink()


def undo_replacing(store: Path, scratch: Path) -> None:
    """Make the table as it was before `replace_entries`, unless that was complete.

    This can itself be stopped, and repeated.
    """
    import zarr

    if not (scratch / JOURNAL).exists():
        return
    journal = json.loads((scratch / JOURNAL).read_text(encoding="utf-8"))
    table_folder = store / "tables" / journal["table"]
    if table_folder.exists() and _identity(table_folder) == journal["identity"]:
        obs = zarr.open_group(table_folder / "obs", mode="r+", use_consolidated=False)
        _set_columns(obs, journal["unchanged_columns"])
        for values in reversed(journal["new"]):  # records are last, so they leave first
            entry = Entry(*values)
            if not entry.below(scratch / "new").exists():
                Move(entry.below(table_folder), entry.below(scratch / "new")).run()
        for slot in SLOTS:
            for source in sorted((scratch / "old" / slot).iterdir()):
                Move(source, table_folder / slot / source.name).run()
        _set_columns(obs, journal["columns"])
    (scratch / JOURNAL).unlink()


def column_order(obs: Any) -> list[str]:
    """Return the columns that a reader of the table sees."""
    return list(obs.attrs["column-order"])


def _write_values(
    adata: "AnnData", entries: Iterable[Entry], folder: Path, zarr_format: int
) -> None:
    """Write the values of entries into a new zarr group."""
    import anndata
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    for entry in entries:
        value = getattr(adata, entry.slot)[entry.key]
        if entry.slot == "obs":
            value = value.array
            if type(value).__name__ == "NumpyExtensionArray":
                value = np.asarray(value)
        with silence(AUTOSHARDING):
            anndata.io.write_elem(group.require_group(entry.slot), entry.key, value)


def _make_slots(table: Any, entries: Iterable[Entry]) -> None:
    """Make the slots of entries that the table on disk lacks."""
    import anndata

    for slot in {entry.slot for entry in entries}:
        if slot not in table:
            anndata.io.write_elem(table, slot, {})


def _write_journal(
    scratch: Path,
    table_folder: Path,
    new: list[Entry],
    columns: list[str],
    unchanged_columns: list[str],
) -> None:
    journal = {
        "table": table_folder.name,
        "identity": _identity(table_folder),
        "new": new,
        "columns": columns,
        "unchanged_columns": unchanged_columns,
    }
    text = json.dumps(journal)
    write_atomically(scratch / JOURNAL, lambda file: file.write_text(text, encoding="utf-8"))


def _identity(folder: Path) -> list[int]:
    """Return numbers that another folder in the same place does not have, such as a new store."""
    status = folder.stat()
    return [status.st_ino, status.st_ctime_ns]


def _set_columns(obs: Any, names: list[str]) -> None:
    """List the columns that a reader of the table sees."""
    if names != column_order(obs):
        obs.attrs["column-order"] = names
