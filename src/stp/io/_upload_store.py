"""Upload stores, and the results that were added to a local copy of a remote store."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from stp._log import count, logger
from stp._progress import track
from stp._text import readable
from stp._urls import as_url, url_name
from stp.data.store import SpotStore
from stp.io._store_path import local_path
from stp.remote.folder import in_threads
from stp.remote.objects import ObjectFolder
from stp.remote.store import ROOT, RemoteStore, open_folder

ELEMENTS = ("images", "labels", "points", "shapes", "tables")  # folders of a SpatialData store
RECORDS = "/uns/"  # of results: which model made them


def upload_store(path: str | Path, url: str, *, overwrite: bool = False) -> None:
    """Upload a training store, so that it appears when it is complete.

    Its root file `zarr.json` is uploaded last, and no reader finds a store without it. An upload
    that was stopped is repeated by the same call.

    Parameters
    ----------
    path
        Path of a store that :func:`stp.io.write_store` wrote.
    url
        Address of the new store, such as "s3://bucket/stores/C2.zarr". Passwords and keys are no
        part of it: they are those of the machine, as other programs use them.
    overwrite
        Replace an existing store.

    Raises
    ------
    FileExistsError
        There is something at `url`, and `overwrite` is False or it is no store.
    ValueError
        `path` is no training store, or `url` no address of a folder.
    PermissionError
        The server does not allow to write to `url`.
    ConnectionError
        The server cannot be reached, or the upload was cut off.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0, overwrite=True)
    >>> stp.io.upload_store("slide.zarr", "memory://stores/slide.zarr", overwrite=True)
    """
    local = local_path(path)
    SpotStore(local)  # raises if it is none
    folder = open_objects(url)
    existing = require_free(folder, overwrite=overwrite)
    names = sorted(
        file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file()
    )
    names.remove(ROOT)
    logger.info(f"Uploading {local.name} to {folder.label}: {count(len(names) + 1, 'file')}")
    if ROOT in existing:
        folder.delete([ROOT])
    _upload(folder, local, names)
    folder.delete(existing.difference(names, [ROOT]))
    sizes = {name: file.size for name, file in folder.list_files().items()}
    different = [name for name in names if sizes.get(name) != (local / name).stat().st_size]
    if different:
        raise ConnectionError(
            f"{different[0]} of {folder.label} was cut off while it was uploaded; call again"
        )
    folder.upload(local / ROOT, ROOT)


def open_objects(url: str) -> ObjectFolder:
    """Return the folder of a URL to which files can be written.

    Raises
    ------
    ValueError
        That is no URL.
    PermissionError
        It is that of a web server.
    """
    address = as_url(url)
    if address is None:
        raise ValueError(f"{readable(url)} is no address such as s3://bucket/C2.zarr")
    folder = open_folder(address)
    if not isinstance(folder, ObjectFolder):
        folder.require_writable()
        raise AssertionError("unreachable")
    return folder


def require_free(folder: ObjectFolder, *, overwrite: bool) -> set[str]:
    """Return the names of the files of an unfinished upload, or of the store to be replaced.

    Raises
    ------
    FileExistsError
        There is a store and `overwrite` is False, or there is something else.
    """
    existing = set(folder.list_files())
    foreign = sorted(
        name for name in existing if name != ROOT and name.partition("/")[0] not in ELEMENTS
    )
    if foreign:
        raise FileExistsError(
            f"{folder.label} has {foreign[0]!r} and is no store, so it is not replaced; choose "
            "another address"
        )
    if ROOT in existing and not overwrite:
        raise FileExistsError(f"{folder.label} exists; pass overwrite=True to replace it")
    return existing


def upload_results(store: RemoteStore, local: Path, before: dict[str, list[int]]) -> None:
    """Upload the files of a local copy that results changed, so that a stop leaves no half.

    Records of models are deleted first and uploaded after their embeddings. An embedding without
    its record is made again. The root file is the last.

    Parameters
    ----------
    store
        The remote store that was copied.
    local
        Folder of the copy.
    before
        State of its files before the results were added, by `file_states`.

    Raises
    ------
    ValueError
        The remote store changed after it was copied.
    """
    folder = open_objects(store.folder.url)
    after = file_states(local)
    changed = [name for name in after if before.get(name) != after[name]]
    removed = [name for name in before if name not in after]
    if not changed and not removed:
        return
    if RemoteStore(store.folder.url).version != store.version:
        raise ValueError(f"{store.label} changed while it was embedded; call again")
    metadata = [name for name in changed if name.endswith(ROOT) and name != ROOT]
    values = [name for name in changed if not name.endswith(ROOT)]
    records = [name for name in values if RECORDS in name]
    old_records = [name for name in (*records, *removed) if RECORDS in name and name in before]
    folder.delete(name for name in old_records if not name.endswith(ROOT))
    _upload(folder, local, [name for name in values if RECORDS not in name])
    _upload(folder, local, metadata)
    _upload(folder, local, records)
    folder.upload(local / ROOT, ROOT)
    folder.delete(name for name in removed if name not in old_records or name.endswith(ROOT))


def file_states(folder: Path) -> dict[str, list[int]]:
    """Return size and time of each file of a folder, by name."""
    states = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            status = file.stat()
            states[file.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns]
    return states


def _upload(folder: ObjectFolder, local: Path, names: Iterable[str]) -> None:
    """Upload files, a few at a time."""
    names = list(names)
    uploads = in_threads(partial(_upload_one, folder, local), names)
    for _ in track(uploads, f"upload {url_name(folder.url)}", "file", total=len(names)):
        pass


def _upload_one(folder: ObjectFolder, local: Path, name: str) -> None:
    folder.upload(local / name, name)
