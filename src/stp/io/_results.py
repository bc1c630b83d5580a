"""Add results to a SpatialData store on disk without rewriting its counts."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.data.store import names_on_disk
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SLOTS = ("obsm", "obs", "uns")  # in the order in which their entries are put in place


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


def write_results(
    sdata: "SpatialData", *, table_key: str = "table", keys: str | Sequence[str] | None = None
) -> None:
    """Write new `obsm`, `obs` and `uns` entries of a table into the store on disk.

    The store is the one that the SpatialData was read from or written to. Each entry is written
    next to the store and then moved into place, so the store stays readable if the process is
    killed. Counts and images are not touched.

    Parameters
    ----------
    sdata
        A SpatialData read from, or written to, a zarr store.
    table_key
        Name of the table in a SpatialData.
    keys
        Names of the entries to write. Entries on disk are replaced, or removed if the table no
        longer has them. By default all entries are written that are not on disk yet.

    Raises
    ------
    ValueError
        The SpatialData is not on disk, or the rows on disk are not those in memory.
    KeyError
        A key is in none of the three slots, neither in memory nor on disk.
    PermissionError
        The store is read-only.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0, overwrite=True)
    >>> stored = spatialdata.read_zarr("slide.zarr")
    >>> stored.tables["table"].obs["seen"] = "yes"
    >>> stp.io.write_results(stored, keys=["seen"])
    """
    adata = get_table(sdata, table_key)
    table_folder = _writable_folder(sdata, table_key)
    on_disk = _list_on_disk(adata, table_folder)
    in_memory = [Entry(slot, key) for slot in SLOTS for key in getattr(adata, slot)]
    if keys is None:
        new = [entry for entry in in_memory if entry not in on_disk]
        removed = []
    else:
        names = as_list(keys)
        new = [entry for entry in in_memory if entry.key in names]
        removed = [entry for entry in on_disk if entry.key in names and entry not in in_memory]
        _require_entries(names, [*new, *removed])
    store = table_folder.parents[1]
    scratch = store.with_name(f".{store.name}.results")
    try:
        _write(adata, new, removed, scratch, table_folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if sdata.has_consolidated_metadata():
        sdata.write_consolidated_metadata()


def _writable_folder(sdata: "SpatialData", table_key: str) -> Path:
    """Return the folder of the table on disk, after checking that it can be written to."""
    if sdata.path is None:
        raise ValueError(
            "the SpatialData is not on disk; call sdata.write(path) or stp.io.write_store first"
        )
    folder = Path(sdata.path) / "tables" / table_key
    if not os.access(folder, os.W_OK) or not os.access(Path(sdata.path).parent, os.W_OK):
        raise PermissionError(
            f"{sdata.path} cannot be written to; copy the store to a folder that you may "
            "write to, or use sdata.write"
        )
    return folder


def _list_on_disk(adata: "AnnData", table_folder: Path) -> list[Entry]:
    """List the entries on disk; raise ValueError if the rows on disk are not those in memory."""
    import zarr

    group = zarr.open_group(table_folder, mode="r", use_consolidated=False)
    if list(map(str, names_on_disk(group["obs"]))) != list(map(str, adata.obs_names)):
        raise ValueError(
            "the rows of the table are not those of the store; write the subset to another store"
        )
    entries = [Entry("obs", key) for key in _columns(group["obs"])]
    for slot in ("obsm", "uns"):
        entries += [Entry(slot, key) for key in group.get(slot, ())]
    return entries


def _require_entries(names: list[str], entries: list[Entry]) -> None:
    """Raise KeyError if a name is that of no entry."""
    unknown = set(names).difference(entry.key for entry in entries)
    if unknown:
        raise KeyError(f"{sorted(unknown)} are in none of obsm, obs and uns; check keys=")


def _write(
    adata: "AnnData", new: list[Entry], removed: list[Entry], scratch: Path, table_folder: Path
) -> None:
    """Write new entries into `scratch`, move them into the table, and removed ones out of it.

    The order keeps the store readable at every step. An entry moves as a whole, because one that
    is half deleted would read as zeros. `uns` records how results were made: a record leaves
    before its results and enters after them, so no results have the record of others. A column
    is listed only while it is there.
    """
    import zarr

    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    for slot in SLOTS:
        (scratch / "old" / slot).mkdir(parents=True)
    _write_values(adata, new, scratch / "new")
    records = [entry for entry in (*new, *removed) if entry.slot == "uns"]
    leave = {
        entry: Move(entry.below(table_folder), entry.below(scratch / "old"))
        for entry in (*new, *removed)
    }
    enter = {entry: Move(entry.below(scratch / "new"), entry.below(table_folder)) for entry in new}
    moves = [leave[entry] for entry in (*records, *removed)]
    for entry in new:
        moves += [leave[entry], enter[entry]]
    obs = zarr.open_group(table_folder / "obs", mode="r+", use_consolidated=False)
    columns = _columns(obs)
    unchanged_columns = [name for name in columns if Entry("obs", name) not in leave]
    remaining_columns = [name for name in columns if Entry("obs", name) not in removed]
    new_columns = [entry.key for entry in new if entry.slot == "obs"]
    _set_columns(obs, unchanged_columns)
    for move in moves:
        move.run()
    _set_columns(obs, list(dict.fromkeys([*remaining_columns, *new_columns])))


def _write_values(adata: "AnnData", entries: Iterable[Entry], folder: Path) -> None:
    """Write the values of entries into a new zarr group."""
    import anndata
    import zarr

    group = zarr.open_group(folder, mode="w")
    for entry in entries:
        value = getattr(adata, entry.slot)[entry.key]
        if entry.slot == "obs":
            value = value.array
            if type(value).__name__ == "NumpyExtensionArray":
                value = np.asarray(value)
        anndata.io.write_elem(group.require_group(entry.slot), entry.key, value)


def _columns(obs: Any) -> list[str]:
    return list(obs.attrs["column-order"])


def _set_columns(obs: Any, names: list[str]) -> None:
    """List the columns that a reader of the table sees."""
    if names != _columns(obs):
        obs.attrs["column-order"] = names
