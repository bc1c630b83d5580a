"""The stores of a collection on a server, where each attempt has its own folder.

Object stores rename nothing at once. A store is written on a local disk and uploaded to
`<name>/<attempt>/<name>.zarr`, its root file last. It is whole when that file is there, and the
table of the collection says which of several whole stores is the one of a row.
"""

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stp._lock_holder import Holder
from stp._urls import join_url, without_secrets
from stp.io._prepare_files import objects_of
from stp.io._prepare_record import PreparedStore, Record, describe_root
from stp.io._prepare_stores import StoreFolder
from stp.io._upload_store import upload_store
from stp.remote.cache import cache_folder
from stp.remote.objects import ObjectFolder
from stp.remote.store import ROOT, RemoteStore

ATTEMPTS = ".attempts"  # folder of files that processes share while rows are prepared
RUNNING = "running"  # file in it that is there while this call runs
KIND = "preparing"  # folder in the cache
HOLDER = "process.json"  # file in the folder of an attempt: the process that writes there
_ATTEMPT = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class RemoteStores(StoreFolder):
    """Stores on a server, which each process writes on its own disk first.

    Parameters
    ----------
    url
        Address of the folder of the stores.
    call
        Name of the folder of files that processes share, which no other call has.
    cache_dir
        Folder of downloads and of stores that are being written; by default that of each machine.
    """

    url: str
    call: str
    cache_dir: Path | None

    @property
    def scratch(self) -> str:
        """URL of a folder for files that processes share while rows are prepared."""
        return join_url(self.url, f"{ATTEMPTS}/{self.call}")

    @property
    def label(self) -> str:
        """The URL for messages."""
        return without_secrets(self.url)

    @property
    def objects(self) -> ObjectFolder:
        """The folder on the server."""
        return objects_of(self.url)

    def require_shared(self) -> None:
        """Raise FileNotFoundError if the call that this process works for has ended."""
        self.objects.read(f"{ATTEMPTS}/{self.call}/{RUNNING}")

    def list_attempts(self, name: str) -> list[str]:
        """List the paths of all stores of a row, whole or not."""
        numbers = filter(_ATTEMPT.fullmatch, self.objects.list_folders(name))
        return [f"{name}/{number}/{name}.zarr" for number in numbers]

    def list_stores(self, name: str) -> dict[str, PreparedStore]:
        """Return the whole stores of a row, by their paths in the folder."""
        stores = {path: self.read(path) for path in self.list_attempts(name)}
        return {path: store for path, store in stores.items() if store is not None}

    def read(self, path: str) -> PreparedStore | None:
        """Return what a store records; None if it is not whole."""
        try:
            return PreparedStore.parse(self.objects.read(f"{path}/{ROOT}"))
        except FileNotFoundError:
            return None

    def describe(self, path: str, record: Record, metadata: Mapping[str, object]) -> None:
        """Change record and metadata of a store."""
        file = f"{path}/{ROOT}"
        self.objects.write(file, describe_root(self.objects.read(file), record, metadata))

    @contextmanager
    def new_attempt(self, name: str) -> Iterator[Path]:
        """Yield the path of a new store, in a folder of the cache that no other process uses."""
        with self._own_folder() as folder:
            yield folder / f"{name}.zarr"

    def publish(self, attempt: Path, name: str) -> str:
        """Upload a whole store, unless there is one of its record; return its path.

        Two processes may upload the same row. The path that is returned first is that of the
        row, and the main process deletes the other.
        """
        own = PreparedStore.read(attempt)
        if own is None:
            raise FileNotFoundError(f"{attempt} is no whole store")
        for path, store in self.list_stores(name).items():
            if store == own:
                return path
        self.require_shared()
        path = f"{name}/{uuid.uuid4().hex[:16]}/{name}.zarr"
        try:
            upload_store(attempt, join_url(self.url, path))
            n_files = sum(file.is_file() for file in attempt.rglob("*"))
            if len(self.objects.list_files(path)) != n_files:
                raise ConnectionError(f"{self.label}/{path} was deleted while it was uploaded")
        except BaseException:
            with suppress(OSError):  # else the next call deletes it
                self.delete(path)
            raise
        return path

    @contextmanager
    def open_local(self, path: str) -> Iterator[Path]:
        """Yield the path of a local copy, which is deleted afterwards."""
        with self._own_folder() as folder:
            copy = folder / path.rpartition("/")[2]
            RemoteStore(join_url(self.url, path)).download(copy)
            yield copy

    def delete(self, path: str) -> None:
        """Delete a store, which is no longer whole as soon as this begins."""
        self.objects.delete([f"{path}/{ROOT}"])
        while names := self.objects.list_files(path):  # a worker of a former call may still upload
            self.objects.delete(names)

    @contextmanager
    def _own_folder(self) -> Iterator[Path]:
        """Yield a new folder of the cache; those of processes that were killed are deleted."""
        place = cache_folder(KIND) if self.cache_dir is None else self.cache_dir / KIND
        _delete_leftovers(place)
        folder = place / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:16]}"
        folder.mkdir(parents=True)
        try:
            descriptor = os.open(folder / HOLDER, os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                Holder.of_this_process(KIND, has_flock=False).write(descriptor)
            finally:
                os.close(descriptor)
            (folder / "store").mkdir()
            yield folder / "store"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_leftovers(place: Path) -> None:
    """Delete what processes of this machine left that were killed."""
    for file in place.glob(f"*/{HOLDER}"):
        with suppress(FileNotFoundError):  # that process is done, or another one deletes
            holder = Holder.read(file)
            if holder is not None and holder.is_local and not holder.is_running:
                shutil.rmtree(file.parent, ignore_errors=True)
