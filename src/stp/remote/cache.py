"""Local copies of remote stores, which are downloaded once and shared by all processes."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from stp._lock import lock
from stp._settings import settings
from stp._urls import url_name, without_secrets
from stp.remote.store import RemoteStore

FILES = "files.json"  # what the server said of the files of a copy


def cache_folder(kind: str) -> Path:
    """Return the folder of downloads of one kind: in that of `stp.settings`, or the default one."""
    if settings.cache_dir is not None:
        return settings.cache_dir / kind
    from huggingface_hub import cached_assets_path

    return Path(cached_assets_path("stp", namespace=kind, subfolder="")).absolute()


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Yield a new folder in the cache, which is deleted afterwards."""
    cache_folder(kind).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache_folder(kind)) as folder:
        yield Path(folder)


def url_folder(url: str, kind: str) -> Path:
    """Return the folder of all that is downloaded from one address; passwords do not count."""
    digest = hashlib.sha256(without_secrets(url).rstrip("/").encode()).hexdigest()
    return cache_folder(kind) / f"{url_name(url)}-{digest[:16]}"


def local_copy(store: RemoteStore) -> Path:
    """Return the local copy of a remote store, which is downloaded if there is none.

    The copy appears when it is complete. Other processes wait for it. If the store changed, a new
    copy is made, and its unchanged files are linked to those of the former copy.

    Raises
    ------
    ConnectionError
        The server cannot be reached. The next call goes on with the files that are missing.
    OSError
        The disk is too small.
    ValueError
        The store changed while it was downloaded.
    """
    folder = url_folder(store.folder.url, "stores")
    target = folder / store.version / store.name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target, "downloading to", wait=True):
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            _link_unchanged(store, folder, partial)
            store.download(partial)
            listing = json.dumps(store.files)
            (target.parent / FILES).write_text(listing, encoding="utf-8")
            partial.rename(target)
    return target


def _link_unchanged(store: RemoteStore, folder: Path, partial: Path) -> None:
    """Link files that a former copy of the same address has, as far as the server tells."""
    for listing in folder.glob(f"*/{FILES}"):
        former = json.loads(listing.read_text(encoding="utf-8"))
        for name, file in store.files.items():
            source = listing.parent / store.name / name
            path = partial / name
            if file.tag and former.get(name) == list(file) and source.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, path)
                except OSError:  # there already, or the disk has no links: it is downloaded
                    continue
