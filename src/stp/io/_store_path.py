"""The folder of a store: it is on a local disk, and it may be written to."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stp._urls import shown_if_remote


def local_path(path: Any) -> Path:
    """Return the folder of a store that is given as text, Path, UPath or file:// address.

    Raises
    ------
    TypeError
        That is no path.
    ValueError
        The store is not on a local disk.
    """
    if not isinstance(path, str | os.PathLike) and not hasattr(path, "protocol"):
        raise TypeError(f"expected the path of a store, got {type(path).__name__}")
    text = str(path)
    if text.startswith("file:/"):
        return Path(unquote(urlsplit(text).path))
    remote = shown_if_remote(path)
    if remote is not None:
        raise ValueError(
            f"{remote} is remote, and this is written on local disks only; download the store "
            "first, or write to a local folder and upload it"
        )
    return Path(text)


def require_writable(store: Path, table_key: str) -> None:
    """Raise PermissionError if results cannot be added to a table of a store.

    Raises
    ------
    FileNotFoundError
        There is no store, or it has no such table.
    """
    table = store / "tables" / table_key
    if not table.is_dir():
        raise FileNotFoundError(
            f"{store} has no table {table_key!r} on disk; write the store with stp.io.write_store"
        )
    folders = [store.resolve().parent, store, table]
    folders += [table / slot for slot in ("obs", "obsm", "uns") if (table / slot).is_dir()]
    if not all(os.access(folder, os.W_OK | os.X_OK) for folder in folders):
        raise PermissionError(
            f"{store} cannot be written to; copy the store to a folder that you may "
            "write to, or use sdata.write"
        )


def check_free(path: Path, overwrite: bool) -> None:
    """Raise FileExistsError if a path must not be written to."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise FileExistsError(
            f"{path} exists and is no store, so it is not replaced; choose another path"
        )
