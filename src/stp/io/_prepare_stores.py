"""The stores of a collection, as the processes that write them see them."""

import os
import shutil
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stp.io._prepare_record import PreparedStore, Record, publish, write_record


class StoreFolder(ABC):
    """A folder of stores, on a disk that all processes share or on a server."""

    @property
    @abstractmethod
    def scratch(self) -> str:
        """Path or URL of a folder for files that processes share while rows are prepared."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The path or URL for messages."""

    @property
    def local_folder(self) -> Path | None:
        """The folder on this disk; None if it is on a server."""
        return None

    @abstractmethod
    def require_shared(self) -> None:
        """Raise FileNotFoundError if this process does not see the folder."""

    @abstractmethod
    def list_stores(self, name: str) -> dict[str, PreparedStore]:
        """Return the whole stores of a row, by their paths in the folder."""

    @abstractmethod
    def describe(self, path: str, record: Record, metadata: Mapping[str, object]) -> None:
        """Change record and metadata of a store."""

    @abstractmethod
    def new_attempt(self, name: str) -> AbstractContextManager[Path]:
        """Return a context with the path of a new store, which no other process uses."""

    @abstractmethod
    def publish(self, attempt: Path, name: str) -> str:
        """Give a whole store its place, unless there is one of its record; return its path."""

    @abstractmethod
    def open_local(self, path: str) -> AbstractContextManager[Path]:
        """Return a context with the path on this disk of a store, or of a copy of it."""

    def find_store(self, name: str, record: Record) -> tuple[str, PreparedStore] | None:
        """Return the store of a row, with its path: one of this record if there is one."""
        stores = self.list_stores(name)
        for path, store in stores.items():
            if store.record.difference(record) is None:
                return path, store
        return next(iter(stores.items()), None)


@dataclass(frozen=True)
class LocalStores(StoreFolder):
    """Stores in a folder that all processes share.

    Parameters
    ----------
    folder
        Folder of the stores.
    attempts
        Folder of attempts on the same file system. It is there while the collection is prepared.
    """

    folder: Path
    attempts: Path

    @property
    def scratch(self) -> str:
        """Path of a folder for files that processes share while rows are prepared."""
        return str(self.attempts)

    @property
    def label(self) -> str:
        """The path for messages."""
        return str(self.folder)

    @property
    def local_folder(self) -> Path:
        """The folder on this disk."""
        return self.folder

    def require_shared(self) -> None:
        """Raise FileNotFoundError if this process does not see the folder."""
        if not self.attempts.is_dir():
            raise FileNotFoundError(
                f"{self.attempts} is not seen by process {os.getpid()} on {socket.gethostname()}; "
                "give a folder that all workers share"
            )

    def list_stores(self, name: str) -> dict[str, PreparedStore]:
        """Return the whole store of a row, by its path in the folder."""
        path = f"{name}.zarr"
        store = PreparedStore.read(self.folder / path)
        return {} if store is None else {path: store}

    def describe(self, path: str, record: Record, metadata: Mapping[str, object]) -> None:
        """Change record and metadata of a store."""
        write_record(self.folder / path, record, metadata)

    @contextmanager
    def new_attempt(self, name: str) -> Iterator[Path]:
        """Yield the path of a new store, in a folder that no other process uses."""
        folder = self.attempts / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            folder.mkdir()
            yield folder / f"{name}.zarr"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, attempt: Path, name: str) -> str:
        """Move a whole store to its place, unless there is one of its record; return its path."""
        path = f"{name}.zarr"
        publish(attempt, self.folder / path)
        return path

    @contextmanager
    def open_local(self, path: str) -> Iterator[Path]:
        """Yield the path on this disk of a store."""
        yield self.folder / path
