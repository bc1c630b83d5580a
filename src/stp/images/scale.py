"""µm per pixel of an image: its sources, and the check that they agree."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.images.coordinates import (
    SpotsOnImage,
    affine_of,
    coordinate_systems,
    linear_scale,
    um_system,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


XENIUM_REGIONS = ("cell_labels", "cell_circles")  # as spatialdata-io names them

VISIUM_PITCH_UM = 100.0  # between neighboring spots; 10x, hexagonal
ST_PITCH_UM = 200.0  # between neighboring spots; Spatial Transcriptomics, square
# Spatial Transcriptomics has fewer rows and columns; larger square grids are of another technology.
ST_LATTICE_ROWS = 64
# 10x writes `spot_diameter_fullres` for this diameter, though a spot measures 55 µm.
SPOT_DIAMETER_UM = 65.0
TOLERANCE = 0.05  # two sources that differ by more contradict each other


def um_per_unit_from_lattice(
    obs: "pd.DataFrame", centers: np.ndarray, pitch_um: float | None = None
) -> float | None:
    """Return µm per unit of `centers`, from a least-squares fit of the lattice of the spots.

    Row + column is always even, or always odd, on the hexagonal lattice of Visium; this tells it
    from Spatial Transcriptomics. The lattice is fitted because the median distance to the nearest
    neighbor is biased if spots are jittered (method.md section 4).

    Parameters
    ----------
    obs
        Table of the spots with their lattice indices `array_row` and `array_col`.
    centers
        Spot centers (n, 2) in any unit; spots without indices or center are ignored.
    pitch_um
        µm between neighbors of a square lattice, if it is known, as for Visium HD.

    Returns
    -------
    µm per unit. None if there are no indices, if they do not span two dimensions, or if the pitch
    is unknown.
    """
    if not {"array_row", "array_col"} <= set(obs):
        return None
    index = obs[["array_row", "array_col"]].to_numpy(dtype=float)
    centers = np.asarray(centers, dtype=float)
    has_place = np.isfinite(index).all(axis=1) & np.isfinite(centers).all(axis=1)
    index = index[has_place]
    design = np.column_stack([index, np.ones(len(index))])
    if not _spans_plane(design):
        return None
    steps = np.linalg.lstsq(design, centers[has_place], rcond=None)[0][:2]  # one row, one column
    per_row, per_col = np.linalg.norm(steps, axis=1)
    if pitch_um:
        return float(pitch_um / (per_row * per_col) ** 0.5)
    is_hexagonal = len(np.unique(index.sum(axis=1) % 2)) == 1
    if is_hexagonal:
        row_um = VISIUM_PITCH_UM * np.sqrt(3) / 2
        col_um = VISIUM_PITCH_UM / 2
    elif index.max() < ST_LATTICE_ROWS:
        row_um = ST_PITCH_UM
        col_um = ST_PITCH_UM
    else:
        return None  # bins of Visium HD, or another square grid of unknown pitch
    return float((row_um / per_row * col_um / per_col) ** 0.5)


def um_per_unit_from_places(um: np.ndarray, centers: np.ndarray) -> float | None:
    """Return µm per unit of `centers`, from the same places in µm.

    Parameters
    ----------
    um
        Places (n, 2) in µm.
    centers
        The same places (n, 2) in any unit; places that are not known in both units are ignored.

    Returns
    -------
    µm per unit, or None if no affine map takes `centers` to `um`: they are other places.
    """
    has_place = np.isfinite(um).all(axis=1) & np.isfinite(centers).all(axis=1)
    um = um[has_place]
    design = np.column_stack([centers[has_place], np.ones(has_place.sum())])
    if not _spans_plane(design):
        return None
    map_to_um = np.linalg.lstsq(design, um, rcond=None)[0]
    distance_um = np.linalg.norm(design @ map_to_um - um, axis=1)
    if np.median(distance_um) > TOLERANCE * um.std():
        return None
    return float(np.sqrt(abs(np.linalg.det(map_to_um[:2]))))


def _spans_plane(design: np.ndarray) -> bool:
    """Return whether places, given as rows x, y, 1, are neither one place nor on one line."""
    return len(design) >= 3 and bool(np.linalg.matrix_rank(design) == 3)


def bin_um(region: str) -> float | None:
    """Return the side of the bins of Visium HD in µm, or None for a region of another kind.

    spatialdata-io writes it into the name of the region: `..._square_008um`.
    """
    match = re.search(r"square_(\d+)um$", region)
    return float(match[1]) if match else None


def scale_factors(uns: Mapping[str, Any], region: str | None = None) -> Mapping[str, float]:
    """Return the scale factors of 10x: those of the region's library, else of the only library.

    Entries of `uns["spatial"]` that are no libraries are ignored, such as CELLxGENE's `is_single`.
    """
    entries = uns.get("spatial", {})
    if not isinstance(entries, Mapping):
        return {}
    libraries = {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}
    if region in libraries:
        return libraries[region].get("scalefactors", {})
    if len(libraries) == 1:
        return next(iter(libraries.values())).get("scalefactors", {})
    return {}


def resolve_scale(
    sources: Mapping[str, float | None], spot_diameter: float | None = None
) -> tuple[float, str]:
    """Return the first known µm per unit, and the name of its source.

    Parameters
    ----------
    sources
        µm per unit by the name of the source, the most trusted first; None if a source is silent.
    spot_diameter
        `spot_diameter_fullres` in the same unit. It is used, with a warning, if no source is known.

    Raises
    ------
    ValueError
        No source is known, a value is no scale, or two sources differ by more than 5 %.
    """
    available = {name: value for name, value in sources.items() if value is not None}
    for name, value in available.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} gives {value:g} µm per pixel, which is no scale")
    if not available and spot_diameter:
        warn(
            f"µm per pixel taken from the spot diameter ({SPOT_DIAMETER_UM:g} µm): "
            "pass um_per_px= if you know it"
        )
        return SPOT_DIAMETER_UM / spot_diameter, "spot diameter"
    if not available:
        raise ValueError(
            "no physical scale: pass um_per_px= (µm per pixel of the full-resolution image), or "
            "give the table microns_per_pixel in its scalefactors or array_row and array_col in obs"
        )
    trusted, um_per_unit = next(iter(available.items()))
    for name, value in available.items():
        if abs(np.log(value / um_per_unit)) > np.log1p(TOLERANCE):
            raise ValueError(
                "sources of the physical scale contradict each other: "
                f"{trusted} gives {um_per_unit:.4g} µm per pixel, {name} gives {value:.4g}; "
                "pass the right one as um_per_px= after removing the wrong one"
            )
    return um_per_unit, trusted


def slide_scale(
    sdata: "SpatialData", table: "AnnData", slide: SpotsOnImage, um_per_px: float | None
) -> tuple[float, str]:
    """Return µm per pixel of the image of a slide, and its source (method.md section 4).

    Parameters
    ----------
    sdata
        SpatialData with the slide.
    table
        Rows of the slide's spots, in the order of its centers.
    slide
        Spots and image in the coordinate system that they share.
    um_per_px
        µm per pixel as the caller gives it, or None.
    """
    units_per_pixel = linear_scale(affine_of(slide.image, slide.coordinate_system))
    # 10x gives its scale factors in the spots' own unit: pixels of the full-resolution image.
    units_per_full_pixel = linear_scale(affine_of(slide.spots, slide.coordinate_system))
    factors = scale_factors(table.uns, slide.region)
    um_per_unit = {
        "microns_per_pixel of the scalefactors": (
            factors.get("microns_per_pixel", 0) / units_per_full_pixel
        ),
        "the um of Xenium in obsm['spatial']": _xenium_um_per_unit(sdata, table, slide),
        "the spot lattice": um_per_unit_from_lattice(
            table.obs, slide.centers, bin_um(slide.region)
        ),
    }
    sources = {
        "um_per_px": um_per_px,
        "the coordinate system um": um_of_system(slide.image),
    }
    for name, value in um_per_unit.items():
        sources[name] = value * units_per_pixel if value else None
    diameter = factors.get("spot_diameter_fullres", 0) * units_per_full_pixel / units_per_pixel
    return resolve_scale(sources, diameter)


def um_of_system(image: Any) -> float | None:
    """Return µm per pixel of an image that has a coordinate system in µm, else None."""
    um = um_system(coordinate_systems(image))
    return None if um is None else linear_scale(affine_of(image, um))


def _xenium_um_per_unit(
    sdata: "SpatialData", table: "AnnData", slide: SpotsOnImage
) -> float | None:
    """Return µm per unit of the centers from the µm that 10x gives for Xenium.

    spatialdata-io stores those in `obsm["spatial"]`; for other technologies it stores pixels there.
    """
    is_xenium = sdata.attrs.get("spatialdata_io_reader") == "xenium"
    if not is_xenium and slide.region not in XENIUM_REGIONS:
        return None
    if "spatial" not in table.obsm:
        return None
    um = np.asarray(table.obsm["spatial"], dtype=float)[:, :2]
    return um_per_unit_from_places(um, slide.centers)
