"""What a store records about the row it was made from, and how a whole store gets its place."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stp.data.store import STORE
from stp.io._store_folder import consolidate

RECORD = "stp_prepared"  # attribute that is written last: from what the store was made
METADATA = "stp_metadata"  # attribute: what the manifest says about the slide


@dataclass(frozen=True)
class Record:
    """What a store was made from.

    Parameters
    ----------
    source
        Digest of paths, sizes and times of the files.
    content
        Digest of the content of the files; None if it was not read for one.
    settings
        Arguments of the row, and the digest of the vocabulary.
    """

    source: str
    content: str | None
    settings: Mapping[str, object]

    def difference(self, other: "Record") -> str | None:
        """Return what changed from this record to another, or None.

        Contents are compared if both have one; otherwise sizes and times are.
        """
        changes = [
            f"{name} was {self.settings.get(name)!r} and is {other.settings.get(name)!r}"
            for name in sorted({*self.settings, *other.settings})
            if self.settings.get(name) != other.settings.get(name)
        ]
        if self.content is not None and other.content is not None:
            if self.content != other.content:
                changes.insert(0, "the content of its source changed")
        elif self.source != other.source:
            changes.insert(0, "path, size or time of its source changed")
        return "; ".join(changes) or None


@dataclass(frozen=True)
class PreparedStore:
    """A whole store that was made from a row of a manifest.

    Parameters
    ----------
    record
        What it was made from.
    metadata
        What the manifest said about the slide.
    digest
        Digest of the content of the store.
    """

    record: Record
    metadata: dict[str, object]
    digest: str

    @classmethod
    def read(cls, store: Path) -> "PreparedStore | None":
        """Return what a store records; None if it is not whole, or was made in another way."""
        import zarr

        try:
            attrs = dict(zarr.open_group(store, mode="r", use_consolidated=False).attrs)
        except (OSError, ValueError, KeyError):
            return None
        return cls._of_attributes(attrs)

    @classmethod
    def parse(cls, root: bytes) -> "PreparedStore | None":
        """Return what the root file `zarr.json` of a store records, or None as `read` does."""
        try:
            attrs = json.loads(root)["attributes"]
        except (ValueError, TypeError, KeyError):
            return None
        return cls._of_attributes(attrs)

    @classmethod
    def _of_attributes(cls, attrs: Mapping[str, Any]) -> "PreparedStore | None":
        if RECORD not in attrs or STORE not in attrs:
            return None
        return cls(Record(**attrs[RECORD]), attrs.get(METADATA, {}), attrs[STORE]["digest"])


def write_record(store: Path, record: Record, metadata: Mapping[str, object]) -> None:
    """Write the metadata and the record of a store; the store is whole when this returns."""
    import zarr

    group = zarr.open_group(store, use_consolidated=False)
    group.update_attributes({METADATA: dict(metadata), RECORD: asdict(record)})
    consolidate(store)


def describe_root(root: bytes, record: Record, metadata: Mapping[str, object]) -> bytes:
    """Return the root file `zarr.json` of a store with another record and other metadata."""
    content = json.loads(root)
    content["attributes"] |= {METADATA: dict(metadata), RECORD: asdict(record)}
    return json.dumps(content, indent=2).encode()


def publish(attempt: Path, store: Path) -> bool:
    """Move a whole store to its place, and return whether it is the first one of its record.

    If another worker was faster with the same row, its store stays. A store of another record is
    replaced.

    Parameters
    ----------
    attempt
        The whole store, on the same file system.
    store
        Its place.
    """
    own = PreparedStore.read(attempt)
    if own is None:
        raise FileNotFoundError(f"{attempt} is no whole store")
    while True:
        if store.exists():
            former = PreparedStore.read(store)
            if former is None:
                raise FileExistsError(
                    f"{store} exists and was not made from a manifest, so it is not replaced; "
                    "move it, or choose another folder"
                )
            if former == own:
                return False
            former_place = attempt.with_name(f"{attempt.name}.former")
            shutil.rmtree(former_place, ignore_errors=True)
            try:
                store.rename(former_place)
            except FileNotFoundError:  # another worker moved it
                continue
        try:
            attempt.rename(store)
        except OSError:
            if not store.exists():
                raise
            continue  # another worker was faster
        return True
