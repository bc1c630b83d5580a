"""Open an image file lazily with the reader that its content needs."""

from pathlib import Path

from stp.images.files.arrays import FileArray
from stp.images.files.plain import open_plain
from stp.images.files.tiff import open_tiff

TIFF_ENDINGS = {".tif", ".tiff", ".svs", ".btf", ".ndpi", ".scn"}


def open_file(path: str | Path) -> tuple[list[FileArray], float | None]:
    """Open an image file lazily.

    Parameters
    ----------
    path
        TIFF, SVS, OME-TIFF, JPEG or PNG file.

    Returns
    -------
    The levels, finest first, and µm per pixel of the finest, or None if the file has no scale.

    Raises
    ------
    FileNotFoundError
        There is no file at `path`.
    ValueError
        The file is truncated or no image, or `path` is a URL.
    """
    if "://" in str(path):
        raise ValueError(f"{path} is a URL; download the image and give its path")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    if path.suffix.lower() in TIFF_ENDINGS:
        return open_tiff(path)
    return [open_plain(path)], None
