"""Where a training store is, and whether it is one of this version."""

import json
from pathlib import Path
from typing import Any

from stp._urls import as_url
from stp.remote.cache import local_copy
from stp.remote.store import RemoteStore

STORE = "stp_store"  # attribute of a training store
STORE_VERSION = 3
LACKING = {  # what stores of former versions do not record
    1: "the species of its genes",
    2: "a digest of its content",
}

WRITE_AGAIN = "write it again: stp.io.write_store(slide, path, overwrite=True)"


def find_local(path: str | Path) -> Path:
    """Return the folder of a store on a local disk; a remote store is downloaded."""
    url = as_url(path)
    if url is None:
        folder = Path(path)
        if not folder.exists():
            raise ValueError(f"there is no store at {path}; check the path")
        return folder
    remote = RemoteStore(url)
    check_version(remote.attrs.get(STORE, {}), remote.label)  # before much is downloaded
    return local_copy(remote)


def check_version(attrs: dict[str, Any], source: str, table_key: str = "table") -> None:
    """Raise ValueError if attributes are not those of a whole store of this version."""
    version = attrs.get("version")
    if version in LACKING:
        raise ValueError(
            f"{source} is a store of version {version}, which does not record "
            f"{LACKING[version]}; {WRITE_AGAIN}"
        )
    if version != STORE_VERSION or "digest" not in attrs:
        raise ValueError(describe_other(source, table_key))


def describe_other(source: str, table_key: str) -> str:
    """Return the error for a folder that is not a training store, or has no such table."""
    return (
        f"{source} is not a training store with a table {table_key!r}; stp.io.write_store makes one"
    )


def read_digest(path: str | Path) -> str | None:
    """Return the digest that a store records, or None if it is no training store.

    The file is read without zarr, which takes longer to open a group.
    """
    if isinstance(path, str):
        try:
            return RemoteStore(path).attrs.get(STORE, {}).get("digest")
        except ValueError:  # there is no store
            return None
    for name, is_attributes in (("zarr.json", False), (".zattrs", True)):
        if (path / name).is_file():
            content = json.loads((path / name).read_text(encoding="utf-8"))
            attributes = content if is_attributes else content.get("attributes", {})
            return attributes.get(STORE, {}).get("digest")
    return None
