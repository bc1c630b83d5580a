"""A zarr store on a server: its files, and whole copies of it on a local disk."""

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from stp._log import count, logger
from stp._progress import track
from stp._urls import url_name, without_secrets
from stp.remote.folder import WEB, RemoteFile, RemoteFolder, in_threads
from stp.remote.objects import ObjectFolder
from stp.remote.web import WebFolder

ROOT = "zarr.json"  # the file that makes a folder a store; it is uploaded last
SHAPES = "ngff:shapes"
POINTS = "ngff:points"


class RemoteStore:
    """A zarr store on a server, which is copied as a whole before anything is read from it.

    Parameters
    ----------
    url
        Address of the folder of the store.

    Attributes
    ----------
    label : str
        The URL without passwords and tokens.
    name : str
        Name of the folder.
    attrs : dict
        Attributes of the store.

    Raises
    ------
    ValueError
        There is no store at the address, or it is none that can be copied.
    ConnectionError
        The server cannot be reached.
    PermissionError
        The server refuses access.
    ImportError
        A package is missing.
    """

    def __init__(self, url: str) -> None:
        self.folder = open_folder(url)
        self.label = self.folder.label
        self.name = url_name(url)
        self._root = self._read_root()
        metadata = self._parse_root()
        self.attrs: dict[str, Any] = metadata.get("attributes", {})
        consolidated = metadata.get("consolidated_metadata") or {}
        self._nodes: dict[str, Any] = consolidated.get("metadata", {})
        if not self._nodes:
            raise ValueError(
                f"{self.label} has no consolidated metadata, so its files are not known; run "
                "zarr.consolidate_metadata on the store, or write it with stp.io.write_store"
            )

    @cached_property
    def files(self) -> dict[str, RemoteFile]:
        """What the server says of each file, by name."""
        files = self._list()
        for name in files:
            _check_name(name, self.label)
        missing = [name for name in self._metadata_files() if name not in files]
        if missing:
            raise ValueError(
                f"{self.label} has lost {missing[0]}, so it is not whole; write the store again"
            )
        return files

    @property
    def version(self) -> str:
        """Digest that changes with the store: of its metadata and, if listed, of its files.

        A web server lists no files, so a change that leaves the metadata as they are is not seen.
        """
        sha256 = hashlib.sha256(self._root)
        if isinstance(self.folder, ObjectFolder):
            sha256.update(json.dumps(self.files).encode())
        return sha256.hexdigest()[:16]

    def has(self, path: str) -> bool:
        """Return whether the store has a group or an array at a path."""
        return path in self._nodes

    def download(self, folder: Path, names: list[str] | None = None) -> None:
        """Copy files into a local folder; those that are complete there stay.

        Parameters
        ----------
        folder
            The folder, which is made.
        names
            Names of the files; by default all.

        Raises
        ------
        OSError
            The disk is too small.
        ValueError
            The store changed while it was copied.
        """
        missing = [name for name in names or self.files if not self._is_complete(folder, name)]
        folder.mkdir(parents=True, exist_ok=True)
        self._require_space(folder, missing)
        if missing:
            size = sum(self.files[name].size or 0 for name in missing)
            n_files = count(len(missing), "file")
            logger.info(f"Downloading {self.label}: {n_files}, {size / 1e6:.1f} MB")
        copies = in_threads(partial(self._copy, folder), missing)
        for _ in track(copies, f"download {self.name}", "file", total=len(missing)):
            pass
        if names is None and RemoteStore(self.folder.url).version != self.version:
            shutil.rmtree(folder)
            raise ValueError(f"{self.label} changed while it was downloaded; call again")

    def _copy(self, folder: Path, name: str) -> None:
        """Copy one file, which appears when it is complete."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            self.folder.download(name, part)
        except FileNotFoundError:
            raise ValueError(
                f"{self.label} lost {name} while it was downloaded; call again"
            ) from None
        size = self.files[name].size
        if size is not None and part.stat().st_size != size:
            part.unlink()
            raise ConnectionError(
                f"{name} of {self.label} was cut off while it was downloaded; call again: complete "
                "files are not transferred again"
            )
        part.rename(path)

    def _is_complete(self, folder: Path, name: str) -> bool:
        path = folder / name
        return path.exists() and self.files[name].size in (None, path.stat().st_size)

    def _require_space(self, folder: Path, names: list[str]) -> None:
        n_needed = sum(self.files[name].size or 0 for name in names)
        n_free = shutil.disk_usage(folder).free
        if n_needed > n_free:
            raise OSError(
                f"{self.label} takes {n_needed / 1e9:.1f} GB, and {folder} has "
                f"{n_free / 1e9:.1f} GB left; set stp.settings.cache_dir to a folder on a larger "
                "disk"
            )

    def _read_root(self) -> bytes:
        try:
            return self.folder.read(ROOT)
        except FileNotFoundError as error:
            reason = "the bucket does not exist" if "bucket does not" in str(error).lower() else ""
            raise ValueError(
                f"there is no store at {self.label}{f' ({reason})' if reason else ''}; check the "
                "address"
            ) from None

    def _parse_root(self) -> dict[str, Any]:
        try:
            metadata = json.loads(self._root)
        except ValueError:
            metadata = None
        if not isinstance(metadata, dict) or metadata.get("node_type") != "group":
            raise ValueError(f"{self.label} is no store: its {ROOT} is not that of a zarr group")
        return metadata

    def _list(self) -> dict[str, RemoteFile]:
        """List the files: by the server, or by the metadata and a question for each file."""
        if isinstance(self.folder, ObjectFolder):
            return self.folder.list_files()
        assert isinstance(self.folder, WebFolder)
        names = [*self._metadata_files(), *self._chunk_files()]
        answers = in_threads(self.folder.look_up, names)
        return {
            name: answer for name, answer in zip(names, answers, strict=True) if answer is not None
        }

    def _metadata_files(self) -> list[str]:
        """List the files that a store must have: metadata and shapes."""
        names = [ROOT, *(f"{path}/{ROOT}" for path in self._nodes)]
        for path, node in self._nodes.items():
            encoding = node.get("attributes", {}).get("encoding-type")
            if encoding == SHAPES:
                names.append(f"{path}/shapes.parquet")
            elif encoding == POINTS and isinstance(self.folder, WebFolder):
                raise ValueError(
                    f"{self.label} has points, whose files a web server does not list; write the "
                    "store with stp.io.write_store, or give the address of an object store"
                )
        for name in names:
            _check_name(name, self.label)
        return names

    def _chunk_files(self) -> Iterator[str]:
        """Yield the files of all chunks; zarr writes none for a chunk of the fill value."""
        for path, node in self._nodes.items():
            if node.get("node_type") == "array":
                for key in _chunk_keys(node):
                    yield f"{path}/{key}"


def open_folder(url: str) -> RemoteFolder:
    """Return the remote folder of a URL; no server is asked yet.

    Raises
    ------
    ImportError
        A package is missing.
    ValueError
        The scheme is unknown, or several are chained.
    """
    scheme = url.partition("://")[0].lower()
    if "::" in scheme:
        raise ValueError(f"{without_secrets(url)} is a chain of addresses; give that of a folder")
    return WebFolder(url) if scheme in WEB else ObjectFolder(url)


def _chunk_keys(node: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of the chunks of an array, or of its shards, by the rules of zarr 3."""
    chunk_shape = node["chunk_grid"]["configuration"]["chunk_shape"]
    encoding = node["chunk_key_encoding"]
    is_default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
    sizes = [
        math.ceil(length / side) for length, side in zip(node["shape"], chunk_shape, strict=True)
    ]
    for place in itertools.product(*map(range, sizes)):
        numbers = [str(number) for number in place]
        if is_default:
            yield separator.join(["c", *numbers])
        else:
            yield separator.join(numbers) or "0"


def _check_name(name: str, label: str) -> None:
    """Raise ValueError if a file would be written outside the folder of a copy."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise ValueError(f"{label} has a file {name!r}, which no store has; it is not downloaded")
