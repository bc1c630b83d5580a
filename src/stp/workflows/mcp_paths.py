"""One folder that the server for agents never leaves, whatever a path, link or file names."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from stp._text import native, readable
from stp._urls import without_secrets
from stp.workflows.mcp_references import names_in_slide, refers_to_files

URL = re.compile(r"[A-Za-z][\w+.-]+:/")  # a drive of Windows has one letter
HDF5_SUFFIXES = (".h5", ".hdf5", ".h5ad")
FOLDERS_OF_SLIDES = (".mrxs", ".dcm")  # formats whose files lie next to the one that is named


class OutsideError(ValueError):
    """A path, a link or the content of a file leads out of the folder of the server."""


@dataclass(frozen=True)
class Root:
    """The folder, with what was checked in it during one call of a tool.

    Parameters
    ----------
    folder
        Absolute path of the folder, without links.
    """

    folder: Path
    _clean: set[Path] = field(default_factory=set, repr=False)

    def path(self, text: str, what: str) -> Path:
        """Return the absolute path without links of a text that is relative to the folder.

        `what` names the path in an error.

        Raises
        ------
        OutsideError
            It is a URL, or leads out of the folder.
        """
        return self.inside(self.folder, text, what)

    def inside(self, base: Path, text: str | Path, what: str) -> Path:
        """Return the absolute path without links of a text that is relative to `base`.

        Raises
        ------
        OutsideError
            It is a URL, or leads out of the folder.
        """
        shown = without_secrets(readable(str(text)))
        if URL.match(str(text)):
            raise OutsideError(
                f"{what} {shown!r} is a URL, and only local files in {self.folder} are used; give "
                "a path in this folder"
            )
        try:
            path = (base / Path(native(str(text))).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a null character
            raise OutsideError(f"{what} {shown!r} is no path: {error}") from error
        if not path.is_relative_to(self.folder):
            raise OutsideError(
                f"{what} {shown!r} leads outside {self.folder}; give a path in this folder"
            )
        return path

    def file(self, text: str, what: str) -> Path:
        """Return the path of a file that exists and leads to no file outside."""
        path = self.path(text, what)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give {what} as a file")
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}; check {what}")
        self.check_tree(path, what)
        return path

    def subfolder(self, text: str, what: str) -> Path:
        """Return the path of a folder that exists, from which no link leads outside."""
        path = self.path(text, what)
        if not path.exists():
            raise FileNotFoundError(f"there is no folder {path}; check {what}")
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is a file; give {what} as a folder")
        self.check_tree(path, what)
        return path

    def check_tree(self, path: Path, what: str) -> None:
        """Check a file, or a folder with all that it has and that its links lead to.

        Raises
        ------
        OutsideError
            A link, or an HDF5 file, leads to a file outside.
        """
        waiting = [path.resolve()]
        while waiting:
            item = waiting.pop()
            if item in self._clean:
                continue
            self._clean.add(item)
            if not item.is_dir():
                self._check_file(item, what)
                continue
            with os.scandir(item) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        waiting.append(self._follow(Path(entry.path), what))
                    elif entry.is_dir() or entry.name.lower().endswith(HDF5_SUFFIXES):
                        waiting.append(Path(entry.path))

    def check_slide(self, path: Path, what: str) -> None:
        """Check the file of a slide, the files next to it, and those that it names.

        Raises
        ------
        OutsideError
            A link leads outside, or the slide names a file outside.
        """
        self.check_tree(path, what)
        if not path.is_file():
            return
        if path.suffix.lower() in FOLDERS_OF_SLIDES:
            self.check_tree(path.parent, what)
        for file, name in names_in_slide(path):
            self.inside(file.parent, name, f"{what}: {file} names the file")

    def _follow(self, link: Path, what: str) -> Path:
        """Return what a link leads to."""
        try:
            target = link.resolve()
        except (OSError, RuntimeError) as error:
            raise OutsideError(f"{what}: the link {link} leads nowhere: {error}") from error
        if not target.is_relative_to(self.folder):
            raise OutsideError(
                f"{what}: the link {link} leads outside {self.folder}; replace it by the files"
            )
        return target

    def _check_file(self, path: Path, what: str) -> None:
        """Raise OutsideError if an HDF5 file has parts in other files."""
        if path.is_file() and refers_to_files(path):
            raise OutsideError(
                f"{what}: {path} has parts in other files, which may lie outside {self.folder}; "
                "write it again as one file"
            )


def require_name(text: str, what: str) -> str:
    """Return the name of a thing in a store, or of a file.

    Raises
    ------
    OutsideError
        It has characters of a path.
    """
    if not text or text in (".", "..") or any(character in text for character in "/\\\0"):
        raise OutsideError(f"{what} {text!r} is no name; leave out / and \\")
    return text
