"""Where um per pixel comes from: lattices, places known in um, scale factors, and the check that sources agree."""

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import affine_of, coordinate_systems, linear_scale, um_system

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


XENIUM_REGIONS = ("cell_labels", "cell_circles")  # as spatialdata-io names them

VISIUM_PITCH = 100.0  # um between neighboring spots; 10x, hexagonal
ST_PITCH = 200.0  # um; Spatial Transcriptomics, square
ST_LATTICE = (
    64  # its arrays have fewer rows and columns; larger square grids are of another technology
)
SPOT_DIAMETER = 65.0  # um for which 10x writes `spot_diameter_fullres`, though a spot measures 55
TOLERANCE = 0.05  # two sources that differ by more contradict each other


def lattice_um_per_unit(
    obs: "pd.DataFrame", centers: np.ndarray, pitch: float | None = None
) -> float | None:
    """Fit the lattice of the spots by least squares and return um per unit of `centers`.

    Visium is told from Spatial Transcriptomics by the parity of row + column, which is constant on its hexagonal
    lattice. A fit, because nearest-neighbor medians are biased where spots are jittered (method.md section 4).

    Parameters
    ----------
    obs
        Holds the lattice indices `array_row` and `array_col`.
    centers
        Spot centers (n, 2) in any unit; spots without indices or center are left out.
    pitch
        um between neighbors of a square lattice, where it is known: Visium HD.

    Returns
    -------
    um per unit, or None where there are no indices, they do not span two dimensions, or the pitch is unknown.
    """
    if not {"array_row", "array_col"} <= set(obs):
        return None
    index = obs[["array_row", "array_col"]].to_numpy(dtype=float)
    centers = np.asarray(centers, dtype=float)
    known = np.isfinite(index).all(axis=1) & np.isfinite(centers).all(axis=1)
    index, centers = index[known], centers[known]
    design = np.column_stack([index, np.ones(len(index))])
    if len(design) < 3 or np.linalg.matrix_rank(design) < 3:
        return None
    steps = np.linalg.lstsq(design, centers, rcond=None)[0][:2]  # one row, one column
    per_row, per_col = np.linalg.norm(steps, axis=1)
    if pitch:
        return float(pitch / (per_row * per_col) ** 0.5)
    hexagonal = len(np.unique(index.sum(axis=1) % 2)) == 1
    if not hexagonal and index.max() >= ST_LATTICE:
        return None  # bins of Visium HD, or another square grid of unknown pitch
    um = (VISIUM_PITCH * np.sqrt(3) / 2, VISIUM_PITCH / 2) if hexagonal else (ST_PITCH, ST_PITCH)
    return float((um[0] / per_row * um[1] / per_col) ** 0.5)


def bin_um(region: str) -> float | None:
    """Read the side of the bins from the name that spatialdata-io gives a region of Visium HD: `..._square_008um`."""
    found = re.search(r"square_(\d+)um$", region)
    return float(found[1]) if found else None


def fitted_um_per_unit(um: np.ndarray, centers: np.ndarray) -> float | None:
    """Fit the same places in um and in another unit, both (n, 2); None where they are not the same places."""
    known = np.isfinite(um).all(axis=1) & np.isfinite(centers).all(axis=1)
    design = np.column_stack([centers[known], np.ones(known.sum())])
    if len(design) < 3 or np.linalg.matrix_rank(design) < 3:
        return None
    map_to_um = np.linalg.lstsq(design, um[known], rcond=None)[0]
    off = np.linalg.norm(design @ map_to_um - um[known], axis=1)
    if np.median(off) > TOLERANCE * um[known].std():
        return None
    return float(np.sqrt(abs(np.linalg.det(map_to_um[:2]))))


def scale_factors(uns: Mapping[str, Any], region: str | None = None) -> Mapping[str, float]:
    """Return the scale factors of 10x: those of a region's library, else of the only one."""
    libraries = uns.get("spatial", {})
    libraries = libraries if isinstance(libraries, Mapping) else {}
    only = next(iter(libraries.values())) if len(libraries) == 1 else {}
    return libraries.get(region, only).get("scalefactors", {})


def resolve(
    sources: Mapping[str, float | None], spot_diameter: float | None = None
) -> tuple[float, str]:
    """Return the first known um per unit and its name; sources that contradict each other are an error.

    Parameters
    ----------
    sources
        Name to um per unit, in the order of trust.
    spot_diameter
        `spot_diameter_fullres` in the same unit: the last resort, with a warning.
    """
    known = {name: value for name, value in sources.items() if value is not None}
    if wrong := [name for name, value in known.items() if not 0 < value < np.inf]:
        raise ValueError(f"{wrong[0]} gives {known[wrong[0]]:g} um per pixel, which is no scale")
    if not known and spot_diameter:
        warnings.warn(
            f"um per pixel taken from the spot diameter ({SPOT_DIAMETER:g} um): pass um_per_px= if you know it",
            stacklevel=2,
        )
        return SPOT_DIAMETER / spot_diameter, "spot diameter"
    if not known:
        raise ValueError(
            "no physical scale: pass um_per_px= (um per pixel of the full-resolution image), or give the table "
            "microns_per_pixel in its scalefactors or array_row and array_col in obs"
        )
    first, value = next(iter(known.items()))
    for name, other in known.items():
        if abs(np.log(other / value)) > np.log1p(TOLERANCE):
            raise ValueError(
                f"sources of the physical scale contradict each other: {first} gives {value:.4g} um per pixel, "
                f"{name} gives {other:.4g}; pass the right one as um_per_px= after removing the wrong one"
            )
    return value, first


def slide_scale(
    sdata, table, region, spots, centers, image_key, system, um_per_px
) -> tuple[float, str]:
    """Resolve um per pixel of the image from every source there is (method.md section 4)."""
    image, um = sdata.images[image_key], um_system(coordinate_systems(sdata.images[image_key]))
    units_per_pixel = linear_scale(affine_of(image, system))
    spot_units = linear_scale(
        affine_of(spots, system)
    )  # per unit of the spots, which 10x gives in full pixels
    factors = scale_factors(table.uns, region)
    per_unit = {
        "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel", 0) / spot_units,
        "the um of Xenium in obsm['spatial']": _xenium_um_per_unit(sdata, table, region, centers),
        "the spot lattice": lattice_um_per_unit(table.obs, centers, bin_um(region)),
    }
    sources = {
        "um_per_px": um_per_px,
        "the coordinate system um": linear_scale(affine_of(image, um)) if um else None,
        **{name: value * units_per_pixel if value else None for name, value in per_unit.items()},
    }
    diameter = factors.get("spot_diameter_fullres", 0) * spot_units / units_per_pixel
    return resolve(sources, diameter)


def _xenium_um_per_unit(
    sdata: Any, table: "AnnData", region: str, centers: np.ndarray
) -> float | None:
    """Compare centers with those of 10x, which spatialdata-io keeps in um for Xenium and for nothing else."""
    if sdata.attrs.get("spatialdata_io_reader") != "xenium" and region not in XENIUM_REGIONS:
        return None
    if "spatial" not in table.obsm:
        return None
    return fitted_um_per_unit(np.asarray(table.obsm["spatial"], dtype=float)[:, :2], centers)
