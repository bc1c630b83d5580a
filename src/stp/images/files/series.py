"""Which of the pictures of a TIFF is the slide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp._log import warn
from stp.images.files.scale_tags import MAX_UM, MIN_UM, SQUARE
from stp.images.files.tiff_xml import Picture, picture_of_series, um_in_xml

EXPORT = "export the slide that you mean to a file with one image, for example with QuPath"
AXES = {"Z": "focal planes", "T": "time points", "C": "channels"}  # names of tifffile's letters
COMPANION = r"(label|macro|thumbnail|thumb|preview|overview|barcode)"
# A whole name such as "macro image", or the end of one such as "a.svs [macro]".
COMPANION_NAME = re.compile(
    rf"(.*[\s\[(:;,_/-])?(slide)?{COMPANION}([\s_-]?(image|picture|scan))?[\s\])_\d]*",
    re.IGNORECASE,
)
# The text of a page of a label or macro; Aperio begins with a line about its software.
COMPANION_TEXT = re.compile(rf"(Aperio[^\n]*\n\s*)?{COMPANION}\b", re.IGNORECASE)
APERIO_MACRO = 9  # subfile type
NDPI_MAGNIFICATION = 65421  # tag; below 0 for the macro and the map
COARSER = 10.0  # a picture that is so much coarser than another is an overview of it
LARGER = 4.0  # an image with other channels and so many more pixels is what the file is about
COLORS = {"r", "g", "b", "red", "green", "blue"}
NUMBERED_CHANNEL = re.compile(r"(channel|ch|c|band)?[\s:_-]*[\d:]*", re.IGNORECASE)
PALETTE = 3  # photometric interpretation: colors of a table


@dataclass(frozen=True)
class Candidate:
    """A series of a TIFF that may be the slide."""

    index: int
    name: str
    shape: tuple[int, int]
    has_color: bool
    is_reduced: bool

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __str__(self) -> str:
        height, width = self.shape
        name = repr(self.name) if self.name else f"image {self.index + 1}"
        return f"{name} ({width} x {height})"


def choose_series(path: Path, tiff: Any, pictures: Sequence[Picture]) -> int:
    """Return the number of the series that is the slide: the largest RGB image.

    Labels, macros, thumbnails and previews are no slides.

    Raises
    ------
    ValueError
        It is not clear which image is the slide, or there is none.
    """
    candidates = [
        _candidate(tiff, index, pictures)
        for index in range(len(tiff.series))
        if not _is_companion(tiff, index, pictures)
    ]
    if not candidates:
        names = ", ".join(str(_candidate(tiff, i, pictures)) for i in range(len(tiff.series)))
        raise ValueError(f"{path} has no slide but only {names}; give the file of the slide")
    largest = max(candidates, key=lambda candidate: candidate.n_pixels)
    in_color = [candidate for candidate in candidates if candidate.has_color]
    in_color = [candidate for candidate in in_color if not candidate.is_reduced] or in_color
    slide = max(in_color, key=lambda candidate: candidate.n_pixels, default=largest)
    if not slide.has_color or largest.n_pixels >= LARGER * slide.n_pixels:
        _refuse_channels(path, tiff, largest, pictures)
        slide = largest
    _refuse_several(path, tiff, slide, in_color)
    _warn_of_other_scans(path, tiff, slide, in_color, pictures)
    return slide.index


def _candidate(tiff: Any, index: int, pictures: Sequence[Picture]) -> Candidate:
    series = tiff.series[index]
    page = series.keyframe
    picture = picture_of_series(tiff, index, pictures)
    return Candidate(
        index,
        str(series.name or ""),
        (page.imagelength, page.imagewidth),
        _has_color(series, picture),
        page.is_reduced,
    )


def _has_color(series: Any, picture: Picture | None) -> bool:
    """Return whether an image has 3 or 4 samples in each pixel, or a plane for each color."""
    if "S" in series.axes:
        return series.shape[series.axes.index("S")] in (3, 4)
    if series.keyframe.photometric == PALETTE:
        return True
    if "C" not in series.axes or series.kind not in ("ome", "imagej", "shaped"):
        return False
    names = [] if picture is None else [name.strip().lower() for name in picture.channels]
    n_channels = series.shape[series.axes.index("C")]
    if n_channels == len(names) == 4:
        return COLORS | {"a", "alpha"} >= set(names)
    has_no_names = all(NUMBERED_CHANNEL.fullmatch(name) for name in names)
    return n_channels == 3 and (has_no_names or COLORS >= set(names))


def _is_companion(tiff: Any, index: int, pictures: Sequence[Picture]) -> bool:
    """Return whether a series is a label, macro, thumbnail or preview."""
    series = tiff.series[index]
    um_along_x = [_um_along_x(tiff, i, pictures) for i in range(len(tiff.series))]
    finest = min(filter(None, um_along_x), default=None)
    um = um_along_x[index]
    is_overview = um is not None and finest is not None and um > COARSER * finest
    return bool(
        COMPANION_NAME.fullmatch(str(series.name or ""))
        or is_overview
        or is_companion_page(series.keyframe)
    )


def _um_along_x(tiff: Any, index: int, pictures: Sequence[Picture]) -> float | None:
    """Return µm per pixel of a series from XML, or None if it is no scale of a microscope."""
    um = um_in_xml(tiff, index, pictures)
    x = None if um is None else um[0]
    return x if x is not None and MIN_UM <= x <= MAX_UM else None


def is_companion_page(page: Any) -> bool:
    """Return whether a page of a TIFF shows a label, macro, thumbnail or preview."""
    magnification = page.tags.valueof(NDPI_MAGNIFICATION) if page.is_ndpi else None
    return bool(
        COMPANION_TEXT.match(page.description)
        or page.subfiletype == APERIO_MACRO
        or (magnification is not None and magnification < 0)
    )


def _refuse_channels(path: Path, tiff: Any, image: Candidate, pictures: Sequence[Picture]) -> None:
    """Raise ValueError if an image has channels that are no colors, as in fluorescence."""
    axes = tiff.series[image.index].axes
    if image.has_color or axes in ("YX", "XY") or "S" in axes:
        return  # which is refused by its shape
    picture = picture_of_series(tiff, image.index, pictures)
    names = ", ".join(filter(None, picture.channels)) if picture else ""
    raise ValueError(
        f"expected an RGB image, but {image} of {path} has "
        f"{names or 'several images of one channel'}; pass the H&E image"
    )


def _refuse_several(
    path: Path, tiff: Any, slide: Candidate, candidates: Sequence[Candidate]
) -> None:
    """Raise ValueError if a file has several images of the size of the slide."""
    same_size = [other for other in candidates if other.shape == slide.shape]
    if len(same_size) > 1:
        names = ", ".join(map(str, same_size))
        raise ValueError(f"{path} has {len(same_size)} images of one size: {names}; {EXPORT}")
    series = tiff.series[slide.index]
    for axis, length in zip(series.axes, series.shape, strict=True):
        if axis not in "YXSC" or (axis == "C" and "S" in series.axes):
            what = AXES.get(axis, "images")
            raise ValueError(f"{path} has {length} {what} of one size in {slide}; {EXPORT}")


def _warn_of_other_scans(
    path: Path,
    tiff: Any,
    slide: Candidate,
    candidates: Sequence[Candidate],
    pictures: Sequence[Picture],
) -> None:
    """Warn if a file has other images at the scale of the slide, which are not read."""
    um = _um_along_x(tiff, slide.index, pictures)
    if um is None:
        return
    others = [
        other
        for other in candidates
        if other != slide
        and abs((_um_along_x(tiff, other.index, pictures) or 0) - um) <= SQUARE * um
    ]
    if others:
        names = ", ".join(map(str, others))
        warn(f"{path}: only {slide} is read, not {names}; {EXPORT} if you mean another")
