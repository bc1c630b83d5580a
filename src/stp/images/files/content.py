"""What a file is by its first bytes, whatever its name."""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

HEAD_BYTES = 512
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
JPEG_MAGIC = b"\xff\xd8\xff"
DICOM_MAGIC = slice(128, 132), b"DICM"
HAMAMATSU = (b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]")
MIRAX_INDEX = "Slidedat.ini"

CONVERT = (
    "convert the slide to one OME-TIFF file with QuPath, or with bioformats2raw and raw2ometiff"
)
UNPACK = "unpack it, and give the image in it"
EXPORT = "export the picture in it as a PNG or TIFF file"
DOWNLOAD = "download the file again"
OTHER_KINDS = (  # first bytes, what the file is, and what helps
    (b"PK\x03\x04", "a ZIP archive", UNPACK),
    (b"\x1f\x8b", "compressed with gzip", UNPACK),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ", "compressed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"%PDF", "a PDF document", EXPORT),
    (b"\x89HDF", "an HDF5 file", "give the image from which it was made"),
    (b"ZISRAWFILE", "a Zeiss CZI file", CONVERT),
    (b"SIS\0", "a part (ETS) of an Olympus VSI slide", CONVERT),
    (b"\x70\0\0\0", "a Leica LIF file", CONVERT),
    (b"\xda\xce\xbe\x0a", "a Nikon ND2 file", CONVERT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file", "convert it to PNG or TIFF"),
    (b"NRRD", "an NRRD file", CONVERT),
    (b"SQLite format 3\0", "an SQLite file, as Sakura slides are", CONVERT),
    (b"\xd0\xcf\x11\xe0", "a file of OLE format, as Zeiss ZVI and Olympus OIB are", CONVERT),
    (b"<DataObject", "a Philips iSyntax slide", CONVERT),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the image with: git lfs pull"),
)


class Reader(Enum):
    """The library that reads a file."""

    TIFFFILE = "tifffile"
    OPENSLIDE = "OpenSlide"
    PILLOW = "Pillow"


@dataclass(frozen=True)
class Kind:
    """What a file is, and what reads it."""

    name: str
    reader: Reader


HTML = re.compile(rb"\s*<(!doctype html|html|head)", re.IGNORECASE)
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def require_file(path: str | Path) -> Path:
    """Return a path if there is a file; raise an error that says what is there instead."""
    scheme = URL.match(str(path))
    if scheme and scheme[1].lower() == "file":
        raise ValueError(f"{path} is a URL; give the path of the file alone, as in /data/slide.svs")
    if scheme:
        raise ValueError(f"{path} is a URL; download the image and give its path")
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(describe_folder(path))
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    return path


def describe_folder(folder: Path) -> str:
    """Return why a folder is no image, and what to give in its place."""
    return f"no image at {folder}: it is a folder; {_what_to_open(folder)}"


def _what_to_open(folder: Path) -> str:
    """Return what to give in place of a folder."""
    if (folder / MIRAX_INDEX).is_file():
        return f"it belongs to a MIRAX slide: give the file {folder.name}.mrxs that lies next to it"
    if any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray")):
        return "read a SpatialData zarr with spatialdata.read_zarr, and other zarr as an array"
    if any(_head(file)[DICOM_MAGIC[0]] == DICOM_MAGIC[1] for file in _first_files(folder)):
        return "it has DICOM files: give one of them, and the others are read with it"
    return "give the path of one file"


def _first_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir())[:20] if file.is_file()]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def kind_of(path: Path) -> Kind:
    """Return what a file is, and which library reads it.

    Raises
    ------
    ValueError
        The file is empty, or of a kind that is not read; the message names the kind.
    """
    head = _head(path)
    if not head:
        raise ValueError(f"{path} is empty, so it is no image that can be read; {DOWNLOAD}")
    if head.startswith(TIFF_MAGIC):
        _refuse_olympus(path)
        return Kind("a TIFF file", Reader.TIFFFILE)
    if head.startswith(JPEG_MAGIC) and _is_mirax(path):
        return Kind("a MIRAX slide", Reader.OPENSLIDE)
    if head.startswith(HAMAMATSU):
        return Kind("a Hamamatsu VMS slide", Reader.OPENSLIDE)
    if head[DICOM_MAGIC[0]] == DICOM_MAGIC[1]:
        return Kind("a DICOM file", Reader.OPENSLIDE)
    for magic, name, remedy in OTHER_KINDS:
        if head.startswith(magic):
            raise ValueError(f"{path} is {name}, which is no image that can be read; {remedy}")
    if HTML.match(head):
        raise ValueError(f"{path} is a web page, which is no image that can be read; {DOWNLOAD}")
    return Kind("a picture", Reader.PILLOW)


def _is_mirax(path: Path) -> bool:
    """Return whether a JPEG is the preview of a MIRAX slide, whose pixels lie in a folder.

    Raises
    ------
    ValueError
        The folder is missing, or the preview does not have the name that OpenSlide needs.
    """
    folder = path.parent / path.stem
    has_folder = (folder / MIRAX_INDEX).is_file()
    if path.suffix.lower() == ".mrxs":
        if not has_folder:
            raise ValueError(
                f"{path} is only the preview of a MIRAX slide: its pixels lie in the folder "
                f"{folder}, which has no {MIRAX_INDEX}; copy the whole folder, or {CONVERT}"
            )
        return True
    if has_folder and not path.with_suffix(".mrxs").is_file():
        raise ValueError(
            f"{path} is only the preview of a MIRAX slide, whose pixels lie in the folder "
            f"{folder}; rename it to {path.stem}.mrxs"
        )
    return False


def _refuse_olympus(path: Path) -> None:
    """Raise ValueError if a TIFF has only the overview of an Olympus slide."""
    folder = path.parent / f"_{path.stem}_"
    if path.suffix.lower() == ".vsi" or any(folder.glob("stack*/*.ets")):
        raise ValueError(
            f"{path} is the overview of an Olympus VSI slide, whose pixels lie in {folder}; "
            f"{CONVERT}"
        )
