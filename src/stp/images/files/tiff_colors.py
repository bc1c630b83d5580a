"""What the tags of a TIFF say about its colors."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stp.images.files.arrays import FileArray
from stp.images.files.channel_names import conversion_by_names, has_no_names
from stp.images.files.colors import ColorConversion, convert_colors, gray_error

# Values of PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
OTHER_COLORS = {4: "a mask", 5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
ASSOCIATED = 1  # value of ExtraSamples: alpha with which the colors are multiplied
ALPHA = (ASSOCIATED, 2)
ORIENTATION, COEFFICIENTS, REFERENCE = 274, 529, 532  # numbers of tags
UPRIGHT = (None, 0, 1)  # values of the tag Orientation: first row on top, first column left
JPEG = {6, 7, 34892, 33007}  # compressions whose YCbCr tifffile converts
APERIO_YCBCR = 33003
JPEG_2000 = {APERIO_YCBCR, 33004, 33005, 34712}
# None, LZW, Deflate, PackBits, LZMA and Zstandard, which know nothing of colors.
BYTE_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}
JPEG_2000_BOX = b"\x00\x00\x00\x0cjP  "  # begins a JP2 file, whose colors the decoder converts
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # begins a plain stream, and its marker of sizes
SIZES_OFFSET = 40  # from the begin of a stream to the number of its components
HEADER_BYTES = 256
REMEDY = "write the image as RGB with 8 bits per channel"


def as_rgb(array: FileArray, series: Any, level: int, ome_channels: Sequence[str]) -> Any:
    """Return a level of a TIFF as an array that is read as RGB: the same if it is RGB.

    Parameters
    ----------
    array
        The level as its file stores it.
    series
        The series of tifffile to which the level belongs.
    level
        Number of the level in the series.
    ome_channels
        Names of the channels in OME metadata, "" for a channel without one.

    Raises
    ------
    ValueError
        The image is grayscale, has colors that are not converted, or is stored rotated.
    """
    page = series.levels[level].keyframe
    axes = series.levels[level].axes
    _check_orientation(array.path, page)
    _check_colors(array, page)
    if array.ndim != 3 or array.dtype != np.uint8:
        return array  # which is refused for its shape or type
    conversion = _conversion(array, series, page, axes, ome_channels)
    channels_first = axes[-1] not in "SC"
    return convert_colors(array, conversion, channels_first)


def _check_orientation(path: Path, page: Any) -> None:
    orientation = page.tags.valueof(ORIENTATION)
    if orientation not in UPRIGHT:
        raise ValueError(
            f"{path} is rotated or mirrored by its tag Orientation ({int(orientation)}), and spots "
            "may be measured on either side; write the image upright, without the tag"
        )


def _check_colors(array: FileArray, page: Any) -> None:
    """Raise ValueError if an image is grayscale or in colors that are not converted."""
    photometric = int(page.photometric)
    if photometric == PALETTE:
        raise ValueError(f"{array.path} has colors of a palette; {REMEDY}")
    if array.ndim == 2 or 1 in (array.shape[0], array.shape[-1]):
        raise gray_error(array.path)
    if photometric == WHITE_IS_ZERO:
        raise ValueError(f"{array.path} is a negative, white is 0 in it; {REMEDY}")
    if photometric not in (BLACK_IS_ZERO, RGB, YCBCR):
        colors = OTHER_COLORS.get(photometric, f"of PhotometricInterpretation {photometric}")
        raise ValueError(f"the colors of {array.path} are {colors}; {REMEDY}")


def _conversion(
    array: FileArray, series: Any, page: Any, axes: str, ome_channels: Sequence[str]
) -> ColorConversion:
    """Return how the channels of a TIFF become RGB."""
    if int(page.photometric) == BLACK_IS_ZERO:
        return _conversion_of_gray_planes(array, series, axes, ome_channels)
    extra_samples = [int(sample) for sample in page.extrasamples]
    alpha = [place for place, kind in enumerate(extra_samples, 3) if kind in ALPHA]
    is_ycbcr = _is_ycbcr(array.path, page)
    return ColorConversion(
        alpha=alpha[0] if alpha else None,
        is_premultiplied=bool(alpha) and extra_samples[alpha[0] - 3] == ASSOCIATED,
        is_ycbcr=is_ycbcr,
    )


def _conversion_of_gray_planes(
    array: FileArray, series: Any, axes: str, ome_channels: Sequence[str]
) -> ColorConversion:
    """Return how gray planes, one for each channel, become RGB."""
    if axes[0] in "ZT":
        raise ValueError(f"{array.path} is a stack of gray images; pass the H&E image")
    n_channels = array.shape[2 if axes[-1] in "SC" else 0]
    names = _channel_names(series, ome_channels)
    if len(names) == n_channels and not has_no_names(names):
        return conversion_by_names(names, str(array.path))
    if n_channels != 3:
        raise ValueError(
            f"{array.path} has {n_channels} gray channels, not red, green and blue; pass the H&E "
            "image"
        )
    return ColorConversion()


def _channel_names(series: Any, ome_channels: Sequence[str]) -> list[str]:
    """Return the names of the channels in the metadata, or nothing if they have none."""
    tiff = series.keyframe.parent
    if series.kind == "ome":
        return [name for name in ome_channels if name]
    if series.kind == "imagej":
        return list((tiff.imagej_metadata or {}).get("Labels", []))
    if series.kind == "qpi":
        pages = [re.search(r"<Name>(.*?)</Name>", page.description) for page in series.pages]
        return [match[1] for match in pages if match]
    return _shaped_names(series.keyframe.description)


def _shaped_names(description: str) -> list[str]:
    """Return the names of the channels in the JSON that tifffile writes."""
    if not description.startswith("{"):
        return []
    try:
        names = json.loads(description)["Channel"]["Name"]
    except (ValueError, KeyError, TypeError):
        return []
    return list(names)


def _is_ycbcr(path: Path, page: Any) -> bool:
    """Return whether decoded tiles are Y, Cb and Cr."""
    compression = int(page.compression)
    is_tagged = int(page.photometric) == YCBCR
    if compression in JPEG_2000:
        if not is_tagged and compression != APERIO_YCBCR:
            return False
        return _has_plain_planes(page)
    if not is_tagged:
        return False
    if compression in JPEG and not page.extrasamples and int(page.planarconfig) == 1:
        return False  # tifffile converts it
    if compression not in BYTE_COMPRESSIONS:
        raise ValueError(
            f"the colors of {path} are YCbCr with the compression {page.compression.name}, which "
            f"is ambiguous; {REMEDY}"
        )
    _check_ycbcr(path, page)
    return True


def _check_ycbcr(path: Path, page: Any) -> None:
    """Raise ValueError if YCbCr is not that of JPEG, with all pixels of each plane."""
    coefficients = page.tags.valueof(COEFFICIENTS) or (299, 1000, 587, 1000, 114, 1000)
    reference = page.tags.valueof(REFERENCE) or (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    is_of_jpeg = np.allclose(_fractions(coefficients), (0.299, 0.587, 0.114), atol=1e-3)
    is_full_range = np.allclose(_fractions(reference), (0, 255, 128, 255, 128, 255), atol=0.5)
    subsampling = page.subsampling or (1, 1)
    if not (is_of_jpeg and is_full_range and tuple(subsampling) == (1, 1)):
        raise ValueError(
            f"the YCbCr colors of {path} are subsampled or scaled in a way that is not read; "
            f"{REMEDY}"
        )


def _fractions(pairs: tuple[int, ...]) -> list[float]:
    """Return the fractions that a tag stores as numerators and denominators."""
    return [pairs[i] / max(pairs[i + 1], 1) for i in range(0, len(pairs), 2)]


def _has_plain_planes(page: Any) -> bool:
    """Return whether JPEG 2000 tiles are decoded to the planes that they store.

    The decoder converts YCbCr to RGB if the chroma planes have fewer pixels than the luma plane,
    or if a tile is a JP2 file, which names its colors.
    """
    offset = next(
        (
            offset
            for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=False)
            if n_bytes
        ),
        0,
    )
    file = page.parent.filehandle
    file.seek(offset)
    header = file.read(HEADER_BYTES)
    if header.startswith(JPEG_2000_BOX) or not header.startswith(JPEG_2000_SIZE):
        return False
    n_components = int.from_bytes(header[SIZES_OFFSET : SIZES_OFFSET + 2], "big")
    start = SIZES_OFFSET + 2
    samplings = {header[start + 3 * i + 1 : start + 3 * i + 3] for i in range(n_components)}
    return len(samplings) == 1
