"""µm per pixel in the tags of a TIFF."""

import re
from typing import Any

MAX_TAG_UM = 5.0  # a coarser resolution tag is that of a screen, not of a microscope
UM_PER_OME_UNIT = {"nm": 1e-3, "mm": 1e3}  # any other unit is taken for µm
UM_PER_TIFF_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimeter


def tagged_um(tiff: Any) -> float | None:
    """Return µm per pixel of a TIFF from the first of these that it has.

    OME metadata, Aperio's MPP, Aperio's magnification, resolution tags.
    """
    page = tiff.pages[0]
    if tiff.is_ome:
        size = re.search(r'PhysicalSizeX="([\d.eE+-]+)"', tiff.ome_metadata)
        if size:
            unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', tiff.ome_metadata)
            return float(size[1]) * UM_PER_OME_UNIT.get(unit[1] if unit else "", 1.0)
    mpp = re.search(r"\bMPP = ([\d.]+)", page.description)
    if mpp:
        return float(mpp[1])
    magnification = re.search(r"\bAppMag = ([\d.]+)", page.description)
    if magnification:
        return 10.0 / float(magnification[1])
    return _resolution_um(page)


def _resolution_um(page: Any) -> float | None:
    """Return µm per pixel from the resolution tags, or None if they are not of a microscope."""
    unit = page.tags.get("ResolutionUnit")
    resolution = page.tags.get("XResolution")
    if not unit or not resolution or int(unit.value) not in UM_PER_TIFF_UNIT:
        return None
    n_pixels, n_units = resolution.value
    if not n_pixels:
        return None
    um = UM_PER_TIFF_UNIT[int(unit.value)] * n_units / n_pixels
    return um if um <= MAX_TAG_UM else None
