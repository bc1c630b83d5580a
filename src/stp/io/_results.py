"""Add results to a SpatialData store on disk without rewriting its counts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp._lock import lock
from stp.data.store import names_on_disk
from stp.io._store_folder import consolidate
from stp.io._store_path import local_path, require_writable
from stp.io._table_entries import (
    SLOTS,
    Entry,
    column_order,
    replace_entries,
    scratch_folder,
    undo_replacing,
)
from stp.tables.table import as_list, get_table
from stp.tables.valid_names import is_valid_name

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def write_results(
    sdata: "SpatialData", *, table_key: str = "table", keys: str | Sequence[str] | None = None
) -> None:
    """Write new `obsm`, `obs` and `uns` entries of a table into the store on disk.

    The store is the one that the SpatialData was read from or written to. Entries are written next
    to the store and then moved into place. If that fails, all entries are as before. If the process
    is killed, the store stays readable, and the next call makes it as before. Several processes
    may write to one store: they take turns, and wait if they have to. Counts and images are not
    touched.

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
        The SpatialData is not on a local disk, the rows on disk are not those in memory, or a name
        is none that SpatialData reads.
    FileNotFoundError
        The table is not on disk.
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
    store = _find_store(sdata)
    require_writable(store, table_key)
    with lock(store, "writing to", wait=True):
        repair_store(store)
        table_folder = store / "tables" / table_key
        on_disk = _list_on_disk(adata, table_folder)
        new, removed = _choose_entries(adata, on_disk, keys)
        _check_names(new, set(on_disk).difference(removed))
        if new or removed:
            try:
                replace_entries(adata, new, removed, scratch_folder(store), table_folder)
            finally:
                repair_store(store)


def repair_store(store: Path) -> None:
    """Undo what was not complete when results were added to a store, and tidy up.

    The scratch folder is deleted last, so it shows whether this is still to be done after a process
    was killed. The caller has the lock of the store.
    """
    import zarr

    scratch = scratch_folder(store)
    if not scratch.exists():
        return
    undo_replacing(store, scratch)
    if zarr.open_group(store, mode="r").metadata.consolidated_metadata is not None:
        consolidate(store)
    shutil.rmtree(scratch)


def _find_store(sdata: "SpatialData") -> Path:
    """Return the folder of a SpatialData, or raise ValueError if it has none on a local disk."""
    if sdata.path is None:
        raise ValueError(
            "the SpatialData is not on disk; call sdata.write(path) or stp.io.write_store first"
        )
    return local_path(sdata.path).resolve()


def _choose_entries(
    adata: "AnnData", on_disk: list[Entry], keys: str | Sequence[str] | None
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries that are written, and those that are removed.

    Raises
    ------
    KeyError
        A key is the name of no entry.
    """
    in_memory = [Entry(slot, key) for slot in SLOTS for key in getattr(adata, slot)]
    if keys is None:
        return [entry for entry in in_memory if entry not in on_disk], []
    names = as_list(keys)
    new = [entry for entry in in_memory if entry.key in names]
    removed = [entry for entry in on_disk if entry.key in names and entry not in in_memory]
    unknown = set(names).difference(entry.key for entry in (*new, *removed))
    if unknown:
        raise KeyError(f"{sorted(unknown)} are in none of obsm, obs and uns; check keys=")
    return new, removed


def _check_names(new: list[Entry], others: set[Entry]) -> None:
    """Raise ValueError if SpatialData could not read a store with these entries."""
    lower_case = {(entry.slot, entry.key.lower()): entry for entry in others}
    for entry in new:
        if not is_valid_name(entry.key) or entry == Entry("obs", "_index"):
            raise ValueError(
                f"{entry.slot}[{entry.key!r}] cannot be written, because SpatialData reads only "
                "names of letters, digits, '_', '.' and '-'; rename it"
            )
        variant = lower_case.setdefault((entry.slot, entry.key.lower()), entry)
        if variant != entry:
            raise ValueError(
                f"{entry.slot}[{entry.key!r}] cannot be written, because {variant.key!r} differs "
                "only in upper and lower case, and SpatialData reads no such store; rename one"
            )


def _list_on_disk(adata: "AnnData", table_folder: Path) -> list[Entry]:
    """List the entries on disk; raise ValueError if the rows on disk are not those in memory."""
    import zarr

    group = zarr.open_group(table_folder, mode="r", use_consolidated=False)
    if list(map(str, names_on_disk(group["obs"]))) != list(map(str, adata.obs_names)):
        raise ValueError(
            "the rows of the table are not those of the store; write the subset to another store"
        )
    entries = [Entry("obs", key) for key in column_order(group["obs"])]
    for slot in ("obsm", "uns"):
        entries += [Entry(slot, key) for key in group.get(slot, ())]
    return entries
