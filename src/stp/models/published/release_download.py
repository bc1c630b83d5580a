"""The files of the authors' release, from the hub and from GitHub, or put into a folder by hand."""

import hashlib
import json
import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from stp._atomic import write_atomically
from stp._log import logger
from stp._settings import settings
from stp.models.published.release_files import GENES, MEANS, SYMBOLS
from stp.models.saved.hub import OutOfReachError, answer_seconds, ask_within, commit_of, fetch
from stp.models.saved.hub import endpoint as hub_endpoint

CHECKPOINT = "pytorch_model.bin"
CHECKPOINT_BYTES = 1_420_774_868  # of the tensors; the file has a little more
HUB_ID = "minghaofdu/STAMP"
GITHUB_RAW = "https://raw.githubusercontent.com"
REPOSITORY = "Hanminghao/STAMP"
REPOSITORY_COMMIT = "78c4fd2"
FILES = "files"  # folder of the files as their authors made them
SOURCES = "sources.json"  # address, commit and SHA-256 of the checkpoint


@dataclass(frozen=True)
class Asset:
    """A file in the authors' repository, as it is at their commit."""

    name: str
    n_bytes: int
    sha256: str

    @property
    def address(self) -> str:
        """The address of the file; STP_GITHUB_RAW names another server, e.g. a mirror."""
        server = os.environ.get("STP_GITHUB_RAW", GITHUB_RAW).rstrip("/")
        return f"{server}/{REPOSITORY}/{REPOSITORY_COMMIT}/src/{self.name}"


ASSETS = (
    Asset(GENES, 1_005_640, "b530b136b203eccfde96856edd6abc2947c83cad999bbc04d0dd82122870d35d"),
    Asset(MEANS, 162_608, "144ee5087298d9d1065b3bc0112004e09a178c5efca5ebaf2b7a0f77220390cf"),
    Asset(SYMBOLS, 507_884, "994e6bd0bb97495ab0eb8dfe9085b8c1bb351abba20216ca3fd32083e2a181e1"),
)


@dataclass(frozen=True)
class ReleaseFiles:
    """Where the files of the release are on this machine, and where the checkpoint comes from."""

    checkpoint: Path
    assets: Path
    source: str


def default_folder() -> Path:
    """Return the folder of the release: in that of `stp.settings`, or in HF_HOME."""
    from huggingface_hub import constants

    if settings.cache_dir is not None:
        return settings.cache_dir / "release"
    return Path(constants.HF_HOME) / "stp" / "release"


def checkpoint_address() -> str:
    """Return the address of the checkpoint on the hub."""
    return f"{hub_endpoint()}/{HUB_ID}/resolve/main/{CHECKPOINT}"


def list_downloads() -> str:
    """Return name, size and address of each file as text."""
    parts = [f"{CHECKPOINT} (about {CHECKPOINT_BYTES / 1e9:.1f} GB, {checkpoint_address()})"]
    parts += [f"{asset.name} ({asset.n_bytes / 1e6:.1f} MB, {asset.address})" for asset in ASSETS]
    return ", ".join(parts)


def download_files(folder: Path) -> ReleaseFiles:
    """Return the files of the release; those that the folder lacks are downloaded.

    Parameters
    ----------
    folder
        Folder of the release. Files that a user puts into its folder `files` are not downloaded.

    Raises
    ------
    FileNotFoundError
        If a file is missing and its server is out of reach.
    ValueError
        If a file is not the one of the authors' commit, or the checkpoint is not the one of the
        first download.
    """
    files = folder / FILES
    files.mkdir(parents=True, exist_ok=True)
    try:
        for asset in ASSETS:
            _get_asset(asset, files)
        checkpoint, commit = _get_checkpoint(folder)
    except (FileNotFoundError, OutOfReachError) as error:
        raise FileNotFoundError(_explain_missing(files, error)) from error
    source = _check_record(folder / SOURCES, checkpoint, commit)
    return ReleaseFiles(checkpoint, files, source)


def _get_asset(asset: Asset, files: Path) -> None:
    """Download an asset unless the folder has it, and compare its digest."""
    path = files / asset.name
    if not path.is_file():
        logger.info(f"Downloading {asset.name} ({asset.n_bytes / 1e6:.1f} MB) from {asset.address}")
        content = _read_address(asset.address, asset.n_bytes)
        if hashlib.sha256(content).hexdigest() != asset.sha256:
            raise ValueError(
                f"{asset.address} is not the file of commit {REPOSITORY_COMMIT}: its SHA-256 "
                f"differs; get {asset.name} elsewhere and put it into {files}"
            )
        write_atomically(path, lambda file: file.write_bytes(content))
    elif digest_file(path) != asset.sha256:
        raise ValueError(
            f"{path} is not the file of commit {REPOSITORY_COMMIT}: its SHA-256 differs; delete "
            f"it, or replace it by {asset.address}"
        )


def _read_address(address: str, n_bytes: int) -> bytes:
    """Return the content at an address, which has this number of bytes."""
    seconds = answer_seconds()
    try:
        response = ask_within(seconds, lambda: urlopen(address, timeout=seconds))
        with response:
            content = response.read(n_bytes + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise OutOfReachError(f"{address} cannot be read: {error}") from error
    if len(content) != n_bytes:
        raise OutOfReachError(f"{address} has {len(content)} bytes or more, not {n_bytes}")
    return content


def _get_checkpoint(folder: Path) -> tuple[Path, str]:
    """Return the checkpoint and its commit, which is empty if a user put the file there."""
    path = folder / FILES / CHECKPOINT
    if path.is_file():
        return path, ""
    commit = _read_record(folder / SOURCES).get("commit") or None
    remedy = f"download {checkpoint_address()} and put it into {folder / FILES}"
    path = fetch(HUB_ID, [CHECKPOINT], revision=commit, remedy=remedy)
    return path, commit_of(path)


def _check_record(record_file: Path, checkpoint: Path, commit: str) -> str:
    """Compare the checkpoint with the first one, or record it; return its source as text."""
    sha256 = digest_file(checkpoint)
    record = _read_record(record_file)
    if record and record["sha256"] != sha256:
        raise ValueError(
            f"{checkpoint} is another file than that of the first download: its SHA-256 is "
            f"{sha256}, not {record['sha256']}; get the first one, or delete {record_file.parent} "
            "to start with the new one"
        )
    if not record:
        record = {"file": CHECKPOINT, "hub_id": HUB_ID, "commit": commit, "sha256": sha256}
        text = json.dumps(record, indent=2)
        write_atomically(record_file, lambda file: file.write_text(text, encoding="utf-8"))
    origin = f"{HUB_ID}@{record['commit']}" if record["commit"] else "a file of the user"
    return (
        f"{CHECKPOINT}, SHA-256 {sha256}, from {origin}, and from the files of "
        f"github.com/{REPOSITORY} at commit {REPOSITORY_COMMIT}"
    )


def _read_record(record_file: Path) -> dict[str, Any]:
    return json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else {}


def _explain_missing(files: Path, error: Exception) -> str:
    """Return the error if files cannot be downloaded: what is missing, and where to put it."""
    addresses = {CHECKPOINT: checkpoint_address()}
    addresses |= {asset.name: asset.address for asset in ASSETS}
    missing = [f"{name} ({addresses[name]})" for name in addresses if not (files / name).is_file()]
    return (
        f"cannot download the authors' release; get {', '.join(missing)} on another machine, put "
        f"them into {files}, and call load_release again ({error})"
    )


def digest_file(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
