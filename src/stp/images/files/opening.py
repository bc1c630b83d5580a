"""Open an image file lazily with the reader that its content needs."""

from pathlib import Path

from stp.images.files.arrays import FileArray
from stp.images.files.content import Reader, kind_of, require_file
from stp.images.files.openslide import open_openslide
from stp.images.files.plain import open_plain
from stp.images.files.tiff import open_tiff


def open_file(path: str | Path) -> tuple[list[FileArray], float | None]:
    """Open an image file lazily.

    The content of the file decides how it is read, not the ending of its name.

    Parameters
    ----------
    path
        TIFF file, such as SVS, NDPI, SCN or OME-TIFF; JPEG or PNG file; or a slide that OpenSlide
        reads (Ventana BIF, MIRAX, VMS, DICOM).

    Returns
    -------
    The levels, finest first, and µm per pixel of the finest, or None if the file has no scale.

    Raises
    ------
    FileNotFoundError
        There is no file at `path`.
    ImportError
        The file needs OpenSlide, which is not installed.
    ValueError
        The file is truncated or no image, it is not clear which of its images is the slide, its
        pixels are not square, or `path` is a URL.
    """
    path = require_file(path)
    kind = kind_of(path)
    if kind.reader is Reader.TIFFFILE:
        return open_tiff(path)
    if kind.reader is Reader.OPENSLIDE:
        return open_openslide(path, kind.name)
    return [open_plain(path)], None
