"""Check paths of the command line before packages are imported, which takes seconds."""

import argparse
from pathlib import Path

from stp._urls import as_url


def require_file(path: Path, kind: str) -> None:
    """Raise ArgumentError unless there is a file at `path`; `kind` says what it should hold."""
    if path.is_dir():
        raise argparse.ArgumentError(None, f"{path} is a folder; give {kind}")
    if not path.exists():
        raise argparse.ArgumentError(None, f"there is no file {path}; give {kind}")


def require_folder(path: Path, kind: str) -> None:
    """Raise ArgumentError unless there is a folder at `path`; `kind` says what it should hold."""
    if not path.exists():
        raise argparse.ArgumentError(None, f"there is no folder {path}; give {kind}")
    if not path.is_dir():
        raise argparse.ArgumentError(None, f"{path} is a file; give {kind}")


def require_no_file(path: Path) -> None:
    """Raise ArgumentError if the folder of the output would be a file, or lie in one."""
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise argparse.ArgumentError(None, f"{folder} is a file; give a folder for the output")


def path_or_url(text: str) -> Path | str:
    """Return the path or the URL of an option."""
    return Path(text) if as_url(text) is None else text


def require_collection(path: Path | str) -> None:
    """Raise ArgumentError if there is no collection at a path; a URL is read later."""
    if isinstance(path, Path) and not path.exists():
        raise argparse.ArgumentError(None, f"there is no collection at {path}")
