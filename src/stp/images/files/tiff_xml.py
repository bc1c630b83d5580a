"""What the XML in a TIFF says about the pictures of the file: OME, Leica SCN and Philips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from stp.images.files.content import CONVERT
from stp.images.files.numbers import parse_number

Um = tuple[float | None, float | None]  # µm per pixel along x and y, as they are stated

# "pixel" and "reference frame", which OME has too, are no lengths.
UM_PER_OME_UNIT = {
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "\N{MICRO SIGN}m": 1.0,
    "\N{GREEK SMALL LETTER MU}m": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}": 1e-4,
    "\N{ANGSTROM SIGN}": 1e-4,
    "in": 25_400.0,
    "inch": 25_400.0,
    "thou": 25.4,
    "pt": 25_400.0 / 72,
}
UM_PER_LEICA_UNIT = 1e-3  # Leica gives the size of a view in nm
UM_PER_PHILIPS_UNIT = 1e3  # Philips gives the distance of pixels in mm, as DICOM does


@dataclass(frozen=True)
class Picture:
    """A picture of a file, as the XML of the file describes it."""

    name: str
    shape: tuple[int, int]  # height and width in pixels
    um: Um | None
    channels: tuple[str, ...] = field(default=())


def read_pictures(path: Path, tiff: Any) -> list[Picture]:
    """Return what the XML in a TIFF says about its pictures, in the order of the XML.

    Raises
    ------
    ValueError
        The XML has entities, or says that the pixels lie in several files.
    """
    text = tiff.pages.first.description
    if not text.lstrip("\ufeff \r\n\t").startswith("<"):
        return []
    root = _parse_xml(path, text)
    if root is None:
        return []
    if tiff.is_ome:
        _refuse_several_files(path, root)
        return list(_ome_pictures(root))
    if tiff.is_scn:
        return list(_leica_pictures(root))
    if tiff.is_philips:
        page = tiff.pages.first
        um = _philips_um(root)
        return [Picture("slide", (page.imagelength, page.imagewidth), um)]
    return []


def um_in_xml(tiff: Any, index: int, pictures: Sequence[Picture]) -> Um | None:
    """Return µm per pixel of a series along x and y as the XML of the file states them."""
    picture = picture_of_series(tiff, index, pictures)
    return None if picture is None else picture.um


def picture_of_series(tiff: Any, index: int, pictures: Sequence[Picture]) -> Picture | None:
    """Return what the XML says about a series, or None if that is not clear.

    tifffile gives no series for pictures without pixels, so these may be fewer than the pictures.
    """
    page = tiff.series[index].keyframe
    if len(pictures) == len(tiff.series):
        return pictures[index]
    shape = (page.imagelength, page.imagewidth)
    same_shape = [picture for picture in pictures if picture.shape == shape]
    if len({picture.um for picture in same_shape}) != 1:
        return None
    return same_shape[0]


def _parse_xml(path: Path, text: str) -> Element | None:
    """Return the root of XML, or None if it is damaged."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(text.strip("\ufeff\0 \r\n\t"))
    except DefusedXmlException as error:
        raise ValueError(
            f"{path} has entities in its XML, which may be harmful and are not read; "
            "write the image again as OME-TIFF without them"
        ) from error
    except ParseError:
        return None


def _elements(parent: Element, name: str) -> Iterator[Element]:
    """Yield the children of an element by their name without namespace."""
    return (child for child in parent if child.tag.rpartition("}")[2] == name)


def _refuse_several_files(path: Path, root: Element) -> None:
    """Raise ValueError if OME-XML says that pixels lie in other files too."""
    described_by = next(_elements(root, "BinaryOnly"), None)
    if described_by is not None:
        raise ValueError(
            f"{path} is one of several files of an OME-TIFF, which "
            f"{described_by.get('MetadataFile')} describes; {CONVERT}"
        )
    files = {
        uuid.text: uuid.get("FileName")
        for image in _elements(root, "Image")
        for pixels in _elements(image, "Pixels")
        for data in _elements(pixels, "TiffData")
        for uuid in _elements(data, "UUID")
    }
    if len(files) > 1:
        names = ", ".join(sorted(str(name) for name in files.values())[:3])
        raise ValueError(f"{path} is one of {len(files)} files of an OME-TIFF ({names}); {CONVERT}")


def _n_pixels(pixels: Element, name: str) -> int:
    """Return a side of a picture, or 0 if it is not stated."""
    return int(parse_number(pixels.get(name)) or 0)


def _ome_pictures(root: Element) -> Iterator[Picture]:
    for image in _elements(root, "Image"):
        for pixels in _elements(image, "Pixels"):
            shape = (_n_pixels(pixels, "SizeY"), _n_pixels(pixels, "SizeX"))
            channels = tuple(channel.get("Name", "") for channel in _elements(pixels, "Channel"))
            yield Picture(image.get("Name", ""), shape, _ome_um(pixels), channels)


def _ome_um(pixels: Element) -> Um | None:
    x = _ome_length(pixels, "PhysicalSizeX")
    if x is None or "PhysicalSizeY" not in pixels.attrib:
        return None if x is None else (x, x)
    return x, _ome_length(pixels, "PhysicalSizeY")


def _ome_length(pixels: Element, name: str) -> float | None:
    """Return a length of OME in µm, or None if its unit is no length."""
    number = parse_number(pixels.get(name))
    um_per_unit = UM_PER_OME_UNIT.get(pixels.get(f"{name}Unit", "µm").strip())
    return None if number is None or um_per_unit is None else number * um_per_unit


def _leica_pictures(root: Element) -> Iterator[Picture]:
    for collection in _elements(root, "collection"):
        for image in _elements(collection, "image"):
            view = next(_elements(image, "view"), None)
            for pixels in _elements(image, "pixels"):
                width, height = _n_pixels(pixels, "sizeX"), _n_pixels(pixels, "sizeY")
                um = _leica_length(view, "sizeX", width), _leica_length(view, "sizeY", height)
                yield Picture(image.get("name", ""), (height, width), um)


def _leica_length(view: Element | None, name: str, n_pixels: int) -> float | None:
    """Return µm per pixel from the size of a picture on the slide."""
    size = None if view is None else parse_number(view.get(name))
    return None if size is None or not n_pixels else size * UM_PER_LEICA_UNIT / n_pixels


def _philips_um(root: Element) -> Um | None:
    """Return µm per pixel of the scan; Philips gives those along y first, in quotation marks."""
    for spacing in root.iterfind(
        ".//Attribute[@Name='PIM_DP_SCANNED_IMAGES']/Array/DataObject"
        "//Attribute[@Name='DICOM_PIXEL_SPACING']"
    ):
        numbers = [parse_number(text.strip('"')) for text in (spacing.text or "").split()]
        if len(numbers) == 2 and None not in numbers:
            y, x = (number * UM_PER_PHILIPS_UNIT for number in numbers if number is not None)
            return x, y
    return None
