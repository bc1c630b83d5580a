"""JPEG and PNG files, which are decoded as a whole."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.images.files.arrays import FileArray
from stp.images.files.colors import gray_error, on_white

if TYPE_CHECKING:
    import PIL.Image

JPEG_BEGIN = b"\xff\xd8\xff"
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
# A decoder paints what a truncated file lacks in gray, so the end of a file is checked.
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 65_536  # the last bytes of a file are among these
MANY_PIXELS = 180_000_000  # from here a warning says how much memory decoding takes
MOST_PIXELS = 2_000_000_000
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")  # names that Pillow gives
RGB_MODES = ("RGB", "RGBA", "P", "PA")
ORIENTATION = 274  # number of the EXIF tag
UPRIGHT = (None, 0, 1)  # its values for pixels that are stored as they are shown


@dataclass
class PlainArray(FileArray):
    """A JPEG or PNG, which can only be decoded as a whole."""

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._decode()[key]

    def _decode(self) -> np.ndarray:
        """Return the pixels (y, x, 3); transparent ones are white."""
        import imagecodecs

        pixels = imagecodecs.imread(str(self.path))
        is_rgb = pixels.ndim == 3 and pixels.shape[:2] == self.shape[:2]
        if not is_rgb or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8:
            raise ValueError(
                f"{self.path} is decoded to pixels of shape {pixels.shape} and type "
                f"{pixels.dtype}; convert it to an RGB image with 8 bits per channel"
            )
        if pixels.shape[2] == 4:
            pixels = on_white(pixels[..., :3], pixels[..., 3])
        return np.ascontiguousarray(pixels)


def open_plain(path: Path) -> PlainArray:
    """Return a JPEG or PNG as an RGB array that is decoded when it is read.

    Raises
    ------
    ValueError
        The file is truncated, no image, too large, rotated by EXIF, or not in RGB colors with 8
        bits per channel.
    """
    import PIL.Image

    try:
        with _open_header(path) as image:
            _check_end(path, LAST_BYTES.get(image.format or "", b""))
            _check_colors(path, image)
            _check_orientation(path, image)
            width, height = image.size
    except (PIL.UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(
            f"{path} is no image that can be read; give a TIFF, SVS, JPEG or PNG file"
        ) from error
    _check_size(path, height, width)
    shape = (height, width, 3)
    return PlainArray(path, shape, np.dtype(np.uint8), shape)


def is_gray(path: Path) -> bool:
    """Return whether a JPEG or PNG has only one channel of color."""
    with _open_header(path) as image:
        return image.mode in GRAY_MODES


def _open_header(path: Path) -> "PIL.Image.Image":
    """Open a picture without decoding it; that of a JPEG or PNG may be of any size."""
    import PIL.Image
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    with path.open("rb") as file:
        begin = file.read(len(PNG_BEGIN))
    # `PIL.Image.open` refuses pictures with more pixels than a limit for all of the process.
    if begin.startswith(JPEG_BEGIN):
        return JpegImageFile(path)
    if begin == PNG_BEGIN:
        return PngImageFile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            return PIL.Image.open(path)
        except PIL.Image.DecompressionBombError as error:
            raise _size_error(path) from error


def _check_end(path: Path, last_bytes: bytes) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        if last_bytes not in file.read():
            raise ValueError(f"{path} ends before its pixels do; is the file complete?")


def _check_colors(path: Path, image: "PIL.Image.Image") -> None:
    """Raise ValueError if a picture is not in RGB colors with 8 bits per channel."""
    if image.mode in GRAY_MODES:
        raise gray_error(path)
    if image.mode not in RGB_MODES:
        raise ValueError(
            f"the colors of {path} are {image.mode}; convert the image to RGB with its color "
            "profile"
        )
    if image.format == "PNG":
        with path.open("rb") as file:
            n_bits = file.read(25)[24]
        if n_bits > 8:
            raise ValueError(f"{path} has uint{n_bits} pixels; convert it to 8 bits per channel")


def _check_orientation(path: Path, image: "PIL.Image.Image") -> None:
    """Raise ValueError if EXIF rotates or mirrors a picture."""
    orientation = _exif(path, image).get(ORIENTATION)
    if orientation not in UPRIGHT:
        raise ValueError(
            f"{path} is rotated or mirrored by its EXIF orientation ({orientation}), and spots may "
            "be measured on either side; save the image upright, as PIL.ImageOps.exif_transpose "
            "does"
        )


def _exif(path: Path, image: "PIL.Image.Image") -> "PIL.Image.Exif":
    """Return the EXIF tags of a picture without decoding it."""
    import PIL.Image

    if image.format != "PNG" or "Raw profile type exif" in image.info:
        return image.getexif()
    tags = PIL.Image.Exif()
    for name, content in _png_chunks(path):
        if name == b"eXIf":
            tags.load(content)
    return tags


def _png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each chunk of a PNG, and the content of chunks with EXIF tags."""
    with path.open("rb") as file:
        file.seek(len(PNG_BEGIN))
        while len(head := file.read(8)) == 8:
            name = head[4:]
            n_bytes = int.from_bytes(head[:4], "big")
            content = file.read(n_bytes) if name == b"eXIf" else b""
            file.seek(n_bytes - len(content) + 4, 1)
            yield name, content


def _check_size(path: Path, height: int, width: int) -> None:
    """Raise ValueError if a picture is too large to decode; a warning says if it is large."""
    n_pixels = height * width
    if n_pixels > MOST_PIXELS:
        raise _size_error(path)
    if n_pixels > MANY_PIXELS:
        warn(
            f"{path} has {n_pixels / 1e6:.0f} megapixels, and decoding it takes "
            f"{3 * n_pixels / 1e9:.1f} GB of memory each time it is read; a tiled TIFF is read in "
            "parts"
        )


def _size_error(path: Path) -> ValueError:
    return ValueError(
        f"{path} is too large for a JPEG or PNG, which decode whole; make it a tiled TIFF"
    )
