"""Add results to a SpatialData store on disk without rewriting its counts."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.store import names_on_disk
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SLOTS = ("obsm", "obs", "uns")


def write_results(
    sdata: "SpatialData", *, table_key: str = "table", keys: str | Sequence[str] | None = None
) -> None:
    """Write new `obsm`, `obs` and `uns` entries of a table into the store that the SpatialData was read from.

    Each entry is written beside the store and moved into place whole, so the store stays readable when the process
    is killed; counts and images are not touched.

    Parameters
    ----------
    sdata
        A SpatialData read from, or written to, a zarr store.
    table_key
        The table whose entries are written.
    keys
        Names of entries: those on disk are replaced, or removed where the table has them no more. By default all that
        are not on disk yet.

    Raises
    ------
    ValueError
        The SpatialData is not on disk, or the rows on disk are not those in memory.
    KeyError
        A key is in none of the three slots, in memory or on disk.
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
    import zarr

    adata = get_table(sdata, table_key)
    if sdata.path is None:
        raise ValueError(
            "the SpatialData is not on disk; call sdata.write(path) or stp.io.write_store first"
        )
    folder = Path(sdata.path) / "tables" / table_key
    if not os.access(folder, os.W_OK) or not os.access(Path(sdata.path).parent, os.W_OK):
        raise PermissionError(
            f"{sdata.path} cannot be written to; copy the store to where you may write, or use sdata.write"
        )
    on_disk = zarr.open_group(folder, mode="r", use_consolidated=False)
    _check_rows(adata, on_disk)
    named = None if keys is None else as_list(keys)
    entries, gone = list(_entries(adata, on_disk, named)), list(_gone(adata, on_disk, named or []))
    if unknown := set(named or ()).difference(key for _, key, *_ in (*entries, *gone)):
        raise KeyError(f"{sorted(unknown)} are in none of obsm, obs and uns; check keys=")
    beside = folder.parents[1].with_name(f".{folder.parents[1].name}.results")
    try:
        _write(entries, gone, beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if sdata.has_consolidated_metadata():
        sdata.write_consolidated_metadata()


def _check_rows(adata: "AnnData", on_disk: Any) -> None:
    obs = on_disk["obs"]
    if list(map(str, names_on_disk(obs))) != list(map(str, adata.obs_names)):
        raise ValueError(
            "the rows of the table are not those of the store; write the subset to a store of its own"
        )


def _entries(
    adata: "AnnData", on_disk: Any, keys: list[str] | None
) -> Iterator[tuple[str, str, Any]]:
    """List slot, key and value of what is to be written."""
    for slot in SLOTS:
        values, written = getattr(adata, slot), _written(on_disk, slot)
        for key in values:
            if key in keys if keys is not None else key not in written:
                yield slot, key, values[key].array if slot == "obs" else values[key]


def _gone(adata: "AnnData", on_disk: Any, keys: list[str]) -> Iterator[tuple[str, str]]:
    """List slot and key of what is to be removed: it is on disk alone."""
    for slot in SLOTS:
        written = _written(on_disk, slot)
        yield from (
            (slot, key) for key in keys if key in written and key not in getattr(adata, slot)
        )


def _written(on_disk: Any, slot: str) -> Any:
    return _columns(on_disk["obs"]) if slot == "obs" else on_disk.get(slot, ())


def _write(
    entries: list[tuple[str, str, Any]], gone: list[tuple[str, str]], beside: Path, folder: Path
) -> None:
    import anndata
    import zarr

    new = zarr.open_group(beside, mode="w")
    for slot, key, value in entries:
        anndata.io.write_elem(
            new.require_group(slot), key, np.asarray(value) if _is_numpy_backed(value) else value
        )
    obs = zarr.open_group(folder / "obs", mode="r+", use_consolidated=False)
    added, removed = ([key for slot, key, *_ in some if slot == "obs"] for some in (entries, gone))
    staying = [name for name in _columns(obs) if name not in removed]
    if added or removed:  # a column that is listed must be there at any moment
        obs.attrs["column-order"] = [name for name in staying if name not in added]
    for slot, key, *_ in sorted([*entries, *gone], key=lambda one: one[0] != "uns"):
        # What tells how results were made goes before they do and comes after them.
        if slot == "uns" or (slot, key) in gone:
            _set_aside(folder / slot / key, beside)
    for slot, key, _ in entries:
        _move(beside / slot / key, folder / slot / key, beside)
    if added:
        obs.attrs["column-order"] = list(dict.fromkeys([*staying, *added]))


def _columns(obs: Any) -> list[str]:
    return list(obs.attrs["column-order"])


def _is_numpy_backed(value: Any) -> bool:
    return type(value).__name__ == "NumpyExtensionArray"


def _move(source: Path, target: Path, beside: Path) -> None:
    _set_aside(target, beside)
    source.rename(target)


def _set_aside(target: Path, beside: Path) -> None:
    """Take an old entry out of the store at once: one that is half deleted would read as zeros."""
    if target.exists():
        old = beside / "old" / target.parent.name
        old.mkdir(parents=True, exist_ok=True)
        target.rename(old / target.name)
