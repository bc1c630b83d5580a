"""Embed a remote store: in a local copy, whose results are uploaded or stay in a folder."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stp._lock import lock
from stp._urls import as_url, url_name
from stp.data.store_source import STORE, check_version, describe_other
from stp.io._upload_store import file_states, open_objects, upload_results
from stp.remote.cache import url_folder
from stp.remote.store import ROOT, RemoteStore

STATE = "state.json"  # of a copy before results were added


@dataclass
class WorkingCopy:
    """The local copy of a remote store to which results are added.

    Parameters
    ----------
    path
        Folder of the copy; None if no results are missing.
    missing
        Names of the embeddings that the remote store lacks.
    """

    path: Path | None
    missing: list[str] = field(default_factory=list)


def check_remote(url: str, output_dir: Path | None, table_key: str) -> None:
    """Raise an error if there is no remote store with a table, or results cannot be written."""
    store = RemoteStore(url)
    check_version(store.attrs.get(STORE, {}), store.label, table_key)
    if not store.has(f"tables/{table_key}"):
        raise ValueError(describe_other(store.label, table_key))
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
        return
    try:
        open_objects(url).require_writable()
    except PermissionError as error:
        raise PermissionError(
            f"results cannot be added to {store.label}, because {error}; give output_dir=, a "
            "local folder for copies of remote stores with their results"
        ) from None


def list_clashes(stores: Iterable[Any], output_dir: Path | None) -> list[str]:
    """List names that several remote stores would have in the output folder."""
    urls = dict.fromkeys(url for url in map(as_url, stores) if url is not None)
    names = Counter(map(url_name, urls))
    if output_dir is None:
        return []
    return [
        f"{n_stores} remote stores have the name {name}, which only one can have in {output_dir}; "
        "embed them by several calls with different folders"
        for name, n_stores in names.items()
        if n_stores > 1
    ]


def copy_into(store: RemoteStore, output_dir: Path) -> Path:
    """Return the copy of a remote store in a folder, which is downloaded if there is none.

    Raises
    ------
    FileExistsError
        The folder has another store of this name.
    """
    target = output_dir / store.name
    output_dir.mkdir(parents=True, exist_ok=True)
    with lock(target, "downloading to", wait=True):
        if not target.exists():
            partial = target.with_name(f".{target.name}.{store.version}.partial")
            store.download(partial)
            partial.rename(target)
    if _digest(target) != store.attrs[STORE]["digest"]:
        raise FileExistsError(f"{target} is another store than {store.label}; give another folder")
    return target


@contextmanager
def working_copy(
    url: str, table_key: str, list_missing: Callable[[Path], list[str]]
) -> Iterator[WorkingCopy]:
    """Yield the copy of a remote store, and upload the results that were added to it.

    Only metadata are downloaded if no results are missing. A copy whose results could not be
    uploaded stays, and the next call uploads them.

    Parameters
    ----------
    url
        Address of the store.
    table_key
        Name of the table in the store.
    list_missing
        Function that lists the missing embeddings of the store in a folder.
    """
    folder = url_folder(url, "embedding")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder, "embedding", wait=True):
        store = RemoteStore(url)
        folder.mkdir(exist_ok=True)
        for other in folder.iterdir():
            if other.name != store.version:  # of the store before it changed
                shutil.rmtree(other)
        target = folder / store.version / store.name
        if not target.exists() and not _download(store, target, table_key, list_missing):
            shutil.rmtree(folder)
            yield WorkingCopy(None)
            return
        state = json.loads((target.parent / STATE).read_text(encoding="utf-8"))
        try:
            yield WorkingCopy(target, state["missing"])
        except Exception:
            shutil.rmtree(folder)
            raise
        upload_results(store, target, state["files"])
        shutil.rmtree(folder)


def _download(
    store: RemoteStore, target: Path, table_key: str, list_missing: Callable[[Path], list[str]]
) -> bool:
    """Download a store if results are missing, and return whether they are."""
    partial = target.with_name(f".{target.name}.partial")
    records = f"tables/{table_key}/uns/"
    names = [name for name in store.files if name.endswith(ROOT) or name.startswith(records)]
    store.download(partial, names)
    missing = list_missing(partial)
    if not missing:
        return False
    store.download(partial)
    state = {"missing": missing, "files": file_states(partial)}
    (target.parent / STATE).write_text(json.dumps(state), encoding="utf-8")
    partial.rename(target)
    return True


def _digest(path: Path) -> str | None:
    """Return the digest of a local store."""
    import zarr

    attrs = zarr.open_group(path, mode="r", use_consolidated=False).attrs
    return attrs.get(STORE, {}).get("digest")
