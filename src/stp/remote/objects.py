"""Folders on S3, GCS and other servers that list their files."""

import contextlib
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from stp._extras import import_extra
from stp._urls import has_login, has_query, without_secrets
from stp.remote.folder import (
    CONNECT_SECONDS,
    READ_SECONDS,
    REMEDIES,
    RemoteFile,
    RemoteFolder,
    has_no_login,
    in_threads,
)

BLOCK_BYTES = 8 * 2**20  # of an upload in memory
S3 = ("s3", "s3a")
NO_LOGIN = (*S3, "gs", "gcs")  # schemes whose URLs take no password
WITHOUT_FOLDERS = NO_LOGIN  # schemes on which a folder is only a part of names
_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


class ObjectFolder(RemoteFolder):
    """A folder on S3, GCS, or any other server whose files fsspec lists."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if self.scheme in NO_LOGIN and has_login(url):
            raise ValueError(
                f"the address of {self.label} has a user or password, which {self.scheme}:// does "
                f"not take; leave it out, and {REMEDIES.get(self.scheme, 'log in')}"
            )
        if has_query(url):
            raise ValueError(
                f"the address of {self.label} has a query, which {self.scheme}:// does not take; "
                "leave out what follows the '?' or '#'"
            )
        self._is_anonymous = False
        self._open()

    def _open(self) -> None:
        fsspec: Any = import_extra("fsspec")
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if self.scheme in S3:
            import_extra("s3fs")
            options["config_kwargs"] = {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"max_attempts": 0},
            }
            if self._is_anonymous:
                options["anon"] = True
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url, **options)
        except ImportError as error:
            raise ImportError(
                f"{self.scheme}:// needs a package that is missing: {error}"
            ) from None
        except ValueError as error:
            raise ValueError(
                f"{self.label} cannot be opened: {without_secrets(str(error))}"
            ) from None
        if self.scheme in S3:
            self._files.retries = 1  # `try_` repeats the calls

    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise FileNotFoundError if there is none."""
        try:
            return self.try_(lambda: self._files.cat_file(self._place(name)))
        except ConnectionError as error:
            if self._is_anonymous or self.scheme not in S3 or not has_no_login(error):
                raise
        self._is_anonymous = True  # a public bucket needs no login
        self._open()
        return self.read(name)

    def download(self, name: str, path: Path) -> None:
        """Write a file to a local path."""
        options = {"max_concurrency": 1} if self.scheme in S3 else {}
        self.try_(lambda: self._files.get_file(self._place(name), str(path), **options))

    def list_files(self, below: str = "") -> dict[str, RemoteFile]:
        """Return what the server says of each file, by its name below the folder.

        Parameters
        ----------
        below
            Folder in this folder, by its name; by default all of it is listed.
        """
        place = self._place(below) if below else self._root
        entries = self.try_(lambda: self._files.find(place, detail=True))
        start = len(self._root.rstrip("/")) + 1
        files = {}
        for place, entry in entries.items():
            if entry.get("type") == "file" and not place.endswith("/"):
                tag = next((str(entry[key]) for key in _TAGS if entry.get(key)), "")
                files[place[start:]] = RemoteFile(entry.get("size"), tag)
        return dict(sorted(files.items()))

    def list_folders(self, below: str = "") -> list[str]:
        """List the names of the folders in this folder, or in a folder below it."""
        place = self._place(below) if below else self._root
        try:
            entries = self.try_(lambda: self._files.ls(place, detail=True))
        except FileNotFoundError:  # an object store has no empty folders
            return []
        folders = [entry["name"] for entry in entries if entry["type"] == "directory"]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in folders)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears when it is complete."""
        self._make_parent(name)
        self.try_(lambda: self._files.pipe_file(self._place(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file if there is none of its name, and return whether this call did."""

        def write() -> bool:
            try:
                self._files.pipe_file(self._place(name), content, mode="create")
            except FileExistsError:
                return False
            return True

        self._make_parent(name)
        # An answer may be lost, and the next try then finds the file of the first one.
        return self.try_(write) or self.read(name) == content

    def modified(self, name: str) -> float:
        """Return when a file was written, in seconds of the clock of the server."""
        return self.try_(lambda: self._files.modified(self._place(name))).timestamp()

    def upload(self, path: Path, name: str) -> None:
        """Write a local file to the server."""
        options = {"chunksize": BLOCK_BYTES} if self.scheme in S3 else {}
        self._make_parent(name)
        self.try_(lambda: self._files.put_file(str(path), self._place(name), **options))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, a few at a time; those that are not there are none."""
        for _ in in_threads(self._delete_one, names):
            pass

    def _delete_one(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.try_(partial(self._files.rm_file, self._place(name)))

    def _make_parent(self, name: str) -> None:
        if self.scheme not in WITHOUT_FOLDERS:
            parent = self._place(name).rpartition("/")[0]
            self.try_(lambda: self._files.makedirs(parent, exist_ok=True))

    def require_writable(self) -> None:
        """Raise an error if files cannot be written and deleted."""
        place = self._place(f".stp_probe.{uuid.uuid4().hex}")
        self.try_(lambda: self._files.pipe_file(place, b" "))
        self.try_(lambda: self._files.rm_file(place))

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
