"""Files that other files name: parts of HDF5 files, and of slides that have several files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INI_SUFFIXES = (".vms", ".vmu", ".ini")
MAX_INI_BYTES = 2**22
VALUE = re.compile(r"^[^=\n]*=[ \t]*(.+?)[ \t\r]*$", re.MULTILINE)


def refers_to_files(path: Path) -> bool:
    """Return whether an HDF5 file has links to other files, or arrays whose values are there."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError:  # another format, or damaged, so that nothing reads it
        return False
    with file:
        return _has_part_elsewhere(file)


def _has_part_elsewhere(file: Any) -> bool:
    import h5py

    def is_elsewhere(name: str, link: Any) -> bool | None:
        if isinstance(link, h5py.ExternalLink):
            return True
        if not isinstance(link, h5py.HardLink):
            return None  # a link within the file
        item = file[name]
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            return True
        return None  # visit the next one

    return bool(file.visititems_links(is_elsewhere))


def names_in_slide(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield names of other files that the file of a slide has, each with the file that names it.

    These are those of OME-TIFF, and paths in the text files of Hamamatsu VMS and MIRAX.
    """
    if path.suffix.lower() == ".mrxs":
        for file in sorted(path.with_suffix("").glob("*.ini")):
            yield from ((file, name) for name in _paths_in_text(file))
    elif path.suffix.lower() in INI_SUFFIXES:
        yield from ((path, name) for name in _paths_in_text(path))
    else:
        yield from ((path, name) for name in _names_in_tiff(path))


def _paths_in_text(path: Path) -> list[str]:
    """Return the values of a text file that have the characters of a path."""
    with path.open(encoding="utf-8", errors="replace") as file:
        values = VALUE.findall(file.read(MAX_INI_BYTES))
    names = [value.replace("\\", "/") for value in values if "://" not in value]
    return [name for name in names if "/" in name]


def _names_in_tiff(path: Path) -> list[str]:
    """Return the names of files in the XML of an OME-TIFF."""
    import tifffile
    from defusedxml import DefusedXmlException, ElementTree

    try:
        with tifffile.TiffFile(path) as tiff:
            text = tiff.ome_metadata
    except (tifffile.TiffFileError, OSError, ValueError):
        return []
    if not text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, DefusedXmlException):
        return []
    names = ("FileName", "MetadataFile")
    return [value for item in root.iter() for key, value in item.items() if key in names]
