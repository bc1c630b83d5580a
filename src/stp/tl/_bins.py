"""The bins of a slide: their lattice, their scale, and where cells lie on them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.bins import BinGrid, find_grid, fit_square_lattice
from stp.images.coordinates import (
    PREFERRED,
    affine_of,
    coordinate_systems,
    spot_centers,
    um_system,
)
from stp.images.lattice import bin_um
from stp.images.regions import find_spots, list_regions
from stp.images.scale import UM_SYSTEM, resolve_scale, scale_factors, um_of_system
from stp.tables.in_tissue import IN_TISSUE, read_in_tissue

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# The largest bins that are common, 200 squares of Stereo-seq, are 100 µm wide. Spots of Spatial
# Transcriptomics have the same lattice, but lie 200 µm apart and are 100 µm wide.
MAX_BIN_UM = 100.0


@dataclass(frozen=True)
class Bins:
    """The bins of a slide.

    Parameters
    ----------
    shapes
        Their shapes in the SpatialData.
    centers
        Their centers (n, 2) in the coordinates of the shapes, in the order of the table.
    grid
        Their lattice.
    um_per_unit
        µm per unit of the coordinates.
    factors
        Scale factors of 10x; empty without.
    in_tissue
        Whether each bin (n,) is in tissue; None if unknown.
    """

    shapes: Any
    centers: np.ndarray
    grid: BinGrid
    um_per_unit: float
    factors: dict[str, float]
    in_tissue: np.ndarray | None

    @property
    def pitch_um(self) -> float:
        """µm between neighboring bins."""
        return self.grid.pitch_um


def find_bins(sdata: "SpatialData", table: "AnnData", table_key: str) -> Bins:
    """Return the bins of a table that annotates the bins of one slide.

    Raises
    ------
    KeyError
        The table annotates no shapes.
    ValueError
        The bins are on no square lattice, have no scale, or are spots with gaps between them.
    """
    region = list_regions(table)[0]
    shapes = find_spots(sdata, region.name)
    system = next(iter(coordinate_systems(shapes)))
    to_units = np.linalg.inv(affine_of(shapes, system))
    in_system = spot_centers(shapes, region.instances, system, region.name)
    centers = in_system @ to_units[:2, :2].T + to_units[:2, 2]
    lattice = fit_square_lattice(table.obs, centers, region.name)
    factors = dict(scale_factors(table.uns, region.name))
    named_um = bin_um(region.name)
    sources = {
        UM_SYSTEM: um_of_system(shapes),
        "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel"),
        "the spot lattice": lattice.um_per_unit(named_um),
    }
    if all(value is None for value in sources.values()):
        raise ValueError(
            f"the bins of table {table_key!r} have no scale in µm; read them with "
            "stp.io.read_visium_hd, or with stp.io.from_anndata(adata, image, spot_pitch_um=)"
        )
    um_per_unit = resolve_scale(sources).um_per_px
    grid = find_grid(table.obs, centers, um_per_unit, region.name)
    if named_um is not None:
        grid = replace(grid, pitch_um=named_um)
    if grid.pitch_um > MAX_BIN_UM:
        raise ValueError(
            f"spots of {region.name} lie {grid.pitch_um:g} µm apart, and bins at most "
            f"{MAX_BIN_UM:g}: the tissue between spots was not measured, so their counts are not "
            "those of a square; use the spots as they are"
        )
    in_tissue = None
    if IN_TISSUE in table.obs:
        in_tissue = read_in_tissue(table.obs[IN_TISSUE], f"obs[{IN_TISSUE!r}]")
    return Bins(shapes, centers, grid, um_per_unit, factors, in_tissue)


def map_between(bins: Any, cells: Any, cells_key: str) -> np.ndarray:
    """Return the map (3, 3) from the coordinates of the bins to those of the cells.

    Raises
    ------
    ValueError
        They share no coordinate system, or several that put the cells on different places.
    """
    shared = sorted(set(coordinate_systems(bins)) & set(coordinate_systems(cells)))
    if not shared:
        raise ValueError(
            f"the shapes {cells_key!r} share no coordinate system with the bins: they are in "
            f"{sorted(coordinate_systems(cells))}, the bins in {sorted(coordinate_systems(bins))}; "
            "add one with spatialdata.transformations.set_transformation"
        )
    preferred = [name for name in PREFERRED if name in shared]
    maps = [
        np.linalg.inv(affine_of(cells, name)) @ affine_of(bins, name)
        for name in preferred[:1] or shared
    ]
    if not all(np.allclose(each, maps[0]) for each in maps):
        raise ValueError(
            f"the coordinate systems {shared} put the shapes {cells_key!r} on different places of "
            "the bins; remove the wrong one with spatialdata.transformations.remove_transformation"
        )
    return maps[0]


def add_um(cells: Any, bins: Bins, cells_key: str) -> None:
    """Add the coordinate system "um" of the bins to cells that have none."""
    from spatialdata.transformations import Affine, set_transformation

    if um_system(coordinate_systems(cells)) is not None:
        return
    name = um_system(coordinate_systems(bins.shapes)) or "um"
    to_um = np.diag([bins.um_per_unit, bins.um_per_unit, 1.0])
    if name in coordinate_systems(bins.shapes):
        to_um = affine_of(bins.shapes, name)
    matrix = to_um @ np.linalg.inv(map_between(bins.shapes, cells, cells_key))
    set_transformation(cells, Affine(matrix, ("x", "y"), ("x", "y")), name)
