"""µm per pixel of a picture in a TIFF, from the tags that makers of slides write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stp.images.files.numbers import parse_number
from stp.images.files.tiff_xml import UM_PER_OME_UNIT, Picture, Um, um_in_xml

MIN_UM = 0.01  # finer than any light microscope
MAX_UM = 1000.0
MAX_RESOLUTION_UM = 5.0  # a coarser resolution tag is that of a screen, not of a microscope
SQUARE = 0.02  # sides of a pixel may differ by this share: scanners measure each of them
UM_OF_MAGNIFICATION = 10.0  # 40x is 0.25 µm per pixel
UM_PER_TIFF_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimeter
NO_TIFF_UNIT = 1
UM_PER_IMAGEJ_UNIT = {
    **UM_PER_OME_UNIT,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "\\u00B5m": 1.0,
    "inches": 25_400.0,
}
NDPI_MAGNIFICATION = 65421


def square_um(path: Path, um: Um | None, max_um: float = MAX_UM) -> float | None:
    """Return µm per pixel from those along x and y, or None if they are no scale of a microscope.

    Raises
    ------
    ValueError
        The pixels are not square, so that patches would be distorted.
    """
    if um is None:
        return None
    x, y = um
    if x is None or y is None or not MIN_UM <= min(x, y) <= max(x, y) <= max_um:
        return None
    if abs(x - y) > SQUARE * min(x, y):
        raise ValueError(
            f"{path} has pixels that are not square: {x:.4g} µm along x and {y:.4g} along y; "
            "resize the image so that both are equal, and correct its tags"
        )
    return (x + y) / 2


def tagged_um(path: Path, tiff: Any, index: int, pictures: Sequence[Picture]) -> float | None:
    """Return µm per pixel of a series of a TIFF, from the first of these that gives it.

    XML of OME, Leica or Philips, fields of Aperio, magnification of NDPI, resolution tags.

    Parameters
    ----------
    path
        Path of the file, for messages.
    tiff
        The open TIFF.
    index
        Number of the series.
    pictures
        What the XML of the file says about its pictures.

    Raises
    ------
    ValueError
        The pixels are not square.
    """
    page = tiff.series[index].keyframe
    um = square_um(path, um_in_xml(tiff, index, pictures))
    if um is None:
        um = _aperio_um(page.description)
    if um is None:
        um = square_um(path, _resolution_um(tiff, page), MAX_RESOLUTION_UM)
    if um is None and tiff.is_ndpi:
        um = _um_of_magnification(page.tags.valueof(NDPI_MAGNIFICATION))
    return um


def _aperio_um(description: str) -> float | None:
    """Return µm per pixel from the fields of Aperio: `key = value`, separated by `|`."""
    if description.startswith(("<", "{")):  # XML or JSON
        return None
    fields: dict[str, str] = {}
    for field in description.split("|"):
        key, _, value = field.partition("=")
        fields.setdefault(key.strip(), value)
    um = parse_number(fields.get("MPP"))
    if um is not None and MIN_UM <= um <= MAX_UM:
        return um
    return _um_of_magnification(fields.get("AppMag"))


def _um_of_magnification(magnification: object) -> float | None:
    number = parse_number(magnification)
    return UM_OF_MAGNIFICATION / number if number is not None and number >= 1 else None


def _resolution_um(tiff: Any, page: Any) -> Um | None:
    """Return µm per pixel along x and y from the resolution tags, or None if they have no unit."""
    unit = page.tags.valueof("ResolutionUnit")
    um_per_unit = UM_PER_TIFF_UNIT.get(unit) if isinstance(unit, int) else None
    if um_per_unit is None and tiff.is_imagej and unit in (None, NO_TIFF_UNIT):
        imagej_unit = (tiff.imagej_metadata or {}).get("unit")
        um_per_unit = UM_PER_IMAGEJ_UNIT.get(str(imagej_unit))
    if um_per_unit is None:
        return None
    x, y = (_um_of_tag(page.tags.valueof(f"{axis}Resolution"), um_per_unit) for axis in "XY")
    return None if x is None or y is None else (x, y)


def _um_of_tag(resolution: object, um_per_unit: float) -> float | None:
    if not isinstance(resolution, tuple) or len(resolution) != 2 or not all(resolution):
        return None
    n_pixels, n_units = resolution
    return um_per_unit * n_units / n_pixels
