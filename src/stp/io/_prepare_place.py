"""Where a collection is written: a local folder, or a folder on a server."""

import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stp._lock import lock
from stp._log import logger
from stp._settings import settings
from stp._urls import as_url, join_url
from stp.data.collection_file import CSV_FILE, FILE, write_table
from stp.io._collection_table import keep_sides
from stp.io._manifest_columns import ManifestRow
from stp.io._prepare_files import objects_of
from stp.io._prepare_log import FILE as LOG
from stp.io._prepare_log import PrepareLog
from stp.io._prepare_record import PreparedStore
from stp.io._prepare_remote import ATTEMPTS, RUNNING, RemoteStores
from stp.io._prepare_stores import LocalStores, StoreFolder
from stp.io._store_path import local_path
from stp.remote.cache import temporary_folder
from stp.remote.folder import in_threads
from stp.remote.lock import RemoteLock
from stp.remote.objects import ObjectFolder

if TYPE_CHECKING:
    import pandas as pd

LOCK = ".prepare.lock"
SECONDS_BETWEEN_LOGS = 10.0  # that are uploaded; the last one always is


@dataclass(frozen=True)
class OpenPlace:
    """A folder of a collection while this process alone prepares it.

    Parameters
    ----------
    stores
        The stores, as workers see them.
    log
        The log.
    write
        Function that writes the table. It gets the paths of the stores by the names of their rows.
    """

    stores: StoreFolder
    log: PrepareLog
    write: "Callable[[pd.DataFrame, Mapping[str, str]], pd.DataFrame]"


class Place(ABC):
    """A folder of a collection."""

    @property
    @abstractmethod
    def location(self) -> Path | str:
        """Path or URL of the folder."""

    @abstractmethod
    def list_faults(self, rows: Sequence[ManifestRow]) -> list[str]:
        """List what is in the way of the stores, one sentence each."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[OpenPlace]:
        """Return a context in which no other process prepares the collection."""

    @abstractmethod
    def list_other_stores(self, rows: Sequence[ManifestRow], log: PrepareLog) -> list[str]:
        """List the stores of rows that left the manifest."""

    @abstractmethod
    def write_file(self, name: str, write: Callable[[Path], None]) -> str:
        """Write a file into the folder, and return its path or URL for messages."""


def place_of(out: str | Path) -> Place:
    """Return the place of a path or URL.

    Raises
    ------
    PermissionError
        That is a web server, which cannot be written to.
    ValueError
        The URL cannot be used.
    """
    url = as_url(out)
    if url is None:
        return LocalPlace(local_path(out).absolute())
    objects_of(url)
    return RemotePlace(url.rstrip("/"))


@dataclass(frozen=True)
class LocalPlace(Place):
    """A folder of a collection on a disk.

    Parameters
    ----------
    folder
        The folder.
    """

    folder: Path

    @property
    def location(self) -> Path:
        """Path of the folder."""
        return self.folder

    def list_faults(self, rows: Sequence[ManifestRow]) -> list[str]:
        """List what is in the way of the stores, one sentence each."""
        if self.folder.exists() and not self.folder.is_dir():
            return [f"{self.folder} is a file; give a folder for the stores"]
        faults = []
        for row in rows:
            store = self.folder / f"{row.name}.zarr"
            if store.exists() and PreparedStore.read(store) is None:
                faults.append(
                    f"{store} exists and was not made from a manifest; move it, or choose another "
                    "name"
                )
            if row.path.resolve() == store.resolve():
                faults.append(
                    f"{row.name}: {store} is the source and the store; choose another name"
                )
        return faults

    @contextmanager
    def lock(self) -> Iterator[OpenPlace]:
        """Lock the folder, and yield it without attempts of calls that were killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.folder, "preparing", wait=False, file=self.folder / LOCK):
            shutil.rmtree(self.folder / ATTEMPTS, ignore_errors=True)
            scratch = self.folder / ATTEMPTS / uuid.uuid4().hex
            scratch.mkdir(parents=True)
            try:
                log = PrepareLog(self.folder / LOG)
                yield OpenPlace(LocalStores(self.folder, scratch), log, self._write)
            finally:
                shutil.rmtree(self.folder / ATTEMPTS, ignore_errors=True)

    def _write(self, table: "pd.DataFrame", paths: Mapping[str, str]) -> "pd.DataFrame":
        """Write the table with the split of the former one."""
        table = keep_sides(table, self.folder / FILE, str(self.folder))
        write_table(table, self.folder / FILE)
        return table

    def list_other_stores(self, rows: Sequence[ManifestRow], log: PrepareLog) -> list[str]:
        """List the stores of rows that left the manifest."""
        names = {f"{row.name}.zarr" for row in rows}
        return [
            path.name
            for path in sorted(self.folder.glob("*.zarr"))
            if path.name not in names and PreparedStore.read(path) is not None
        ]

    def write_file(self, name: str, write: Callable[[Path], None]) -> str:
        """Write a file into the folder, and return its path."""
        write(self.folder / name)
        return str(self.folder / name)


@dataclass(frozen=True)
class RemotePlace(Place):
    """A folder of a collection on a server.

    Parameters
    ----------
    url
        Its URL.
    """

    url: str

    @property
    def location(self) -> str:
        """URL of the folder."""
        return self.url

    def list_faults(self, rows: Sequence[ManifestRow]) -> list[str]:
        """List the names that cannot be part of an address, one sentence each."""
        return [
            f"{row.name}: a name with '?', '#' or '::' cannot be part of an address; choose "
            "another name"
            for row in rows
            if any(mark in row.name for mark in ("?", "#", "::"))
        ]

    @contextmanager
    def lock(self) -> Iterator[OpenPlace]:
        """Lock the folder, and yield it without attempts of calls that were killed."""
        objects = objects_of(self.url)
        with RemoteLock(objects, LOCK, "preparing") as lock_, temporary_folder("logs") as local:
            stores = RemoteStores(self.url, uuid.uuid4().hex, settings.cache_dir)
            self._delete_leftovers(stores)
            objects.write(f"{ATTEMPTS}/{stores.call}/{RUNNING}", b" ")
            for name in (LOG, FILE):
                try:
                    (local / name).write_bytes(objects.read(name))
                except FileNotFoundError:  # this is the first call
                    continue
            uploads = _LogUploads(objects, local / LOG)

            def write(table: "pd.DataFrame", paths: Mapping[str, str]) -> "pd.DataFrame":
                lock_.require()
                table = keep_sides(table, local / FILE, stores.label)
                write_table(table, local / FILE)
                objects.upload(local / CSV_FILE, CSV_FILE)
                objects.upload(local / FILE, FILE)
                self._delete_others(stores, paths)
                return table

            try:
                yield OpenPlace(stores, PrepareLog(local / LOG, uploads.upload_sometimes), write)
            finally:
                try:
                    uploads.upload()
                    objects.delete(objects.list_files(ATTEMPTS))
                except OSError as error:  # another error may be on its way
                    logger.warning(f"the end of this call is not in {LOG}: {error}")

    def _delete_leftovers(self, stores: RemoteStores) -> None:
        """Delete stores that are not whole, and the files that processes of one call share."""
        objects = stores.objects
        objects.delete(objects.list_files(ATTEMPTS))
        names = [name for name in objects.list_folders() if not name.startswith(".")]
        paths = [path for attempts in in_threads(stores.list_attempts, names) for path in attempts]
        records = in_threads(stores.read, paths)
        for path, record in zip(paths, records, strict=True):
            if record is None:
                stores.delete(path)

    def _delete_others(self, stores: RemoteStores, paths: Mapping[str, str]) -> None:
        """Delete former stores of rows, and those that were written twice."""
        answers = in_threads(stores.list_attempts, paths)
        for path, attempts in zip(paths.values(), answers, strict=True):
            for other in attempts:
                if other != path:
                    stores.delete(other)

    def list_other_stores(self, rows: Sequence[ManifestRow], log: PrepareLog) -> list[str]:
        """List the stores of rows that left the manifest, as the log has them."""
        names = {row.name for row in rows}
        return [path for name, path in sorted(log.paths.items()) if name not in names]

    def write_file(self, name: str, write: Callable[[Path], None]) -> str:
        """Write a file into the folder, and return its URL for messages."""
        objects = objects_of(self.url)
        with temporary_folder("writing") as local:
            write(local / name)
            objects.upload(local / name, name)
        return join_url(objects.label, name)


class _LogUploads:
    """Uploads of the log, which an object store cannot add lines to.

    Parameters
    ----------
    objects
        Folder on the server.
    file
        The local file.
    """

    def __init__(self, objects: ObjectFolder, file: Path) -> None:
        self._objects = objects
        self._file = file
        self._last = time.monotonic()

    def upload_sometimes(self) -> None:
        """Upload the log if the last time is some seconds ago.

        After a kill, stores whose lines are missing are measured again.
        """
        if time.monotonic() - self._last > SECONDS_BETWEEN_LOGS:
            self.upload()

    def upload(self) -> None:
        """Upload the log if there is one."""
        if self._file.exists():
            self._objects.upload(self._file, LOG)
        self._last = time.monotonic()
