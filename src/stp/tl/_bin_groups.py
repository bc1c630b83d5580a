"""Which bins are summed: those of a square or of a cell, and the elements that this gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.bins import BinGrid, find_cells, list_windows
from stp.images.coordinates import coordinate_systems
from stp.tables.in_tissue import IN_TISSUE
from stp.tables.keys import SPATIAL
from stp.tl._bins import Bins, add_um, map_between

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

INSTANCE = "location_id"  # as spatialdata-io names it for Visium HD


@dataclass(frozen=True)
class BinGroups:
    """Groups of bins that are summed, each to a row of the new table.

    Parameters
    ----------
    noun
        What a group is: "square" or "cell".
    membership
        Groups (m, n) with 1 for each of their bins.
    obs
        Columns of the new table, named by group.
    centers
        Centers (m, 2) of the groups in the coordinates of their shapes.
    region
        Name of their shapes.
    instances
        Id of each group (m,) in the shapes.
    shapes
        New shapes; None if the shapes are there.
    uns
        Scale factors of 10x for the new table.
    n_shared
        Number of bins that lie in several cells.
    n_empty
        Number of cells without a bin.
    """

    noun: str
    membership: "csr_matrix"
    obs: "pd.DataFrame"
    centers: np.ndarray
    region: str
    instances: np.ndarray
    shapes: Any = None
    uns: Any = None
    n_shared: int = 0
    n_empty: int = 0

    @property
    def inside(self) -> np.ndarray:
        """Bins that are in a group, in ascending order."""
        return np.unique(self.membership.indices)

    @property
    def outside(self) -> np.ndarray:
        """Bins that are in no group, in ascending order."""
        return np.setdiff1d(np.arange(self.membership.shape[1]), self.inside)

    @property
    def has_overlap(self) -> bool:
        """Whether a bin is in several groups."""
        return self.membership.nnz > len(self.inside)

    def make_table(self, counts: Any, var: "pd.DataFrame") -> "AnnData":
        """Return the table of the summed counts, which annotates no shapes yet."""
        import anndata

        table = anndata.AnnData(counts, obs=self.obs, var=var, obsm={SPATIAL: self.centers})
        if self.uns:
            table.uns["spatial"] = {self.region: {"scalefactors": dict(self.uns)}}
        return table

    def add(self, sdata: "SpatialData", table: "AnnData", bins: Bins, key: str) -> None:
        """Add the table, its shapes, and the coordinate system "um" of cells to a SpatialData."""
        from spatialdata.models import TableModel

        if self.shapes is not None:
            sdata.shapes.pop(self.region, None)
            sdata.shapes[self.region] = self.shapes
        else:
            add_um(sdata.shapes[self.region], bins, self.region)
        table.obs["region"] = self.region
        table.obs["region"] = table.obs["region"].astype("category")
        table.obs[INSTANCE] = self.instances
        sdata.tables.pop(key, None)
        sdata.tables[key] = TableModel.parse(
            table, region=self.region, region_key="region", instance_key=INSTANCE
        )


def group_by_squares(bins: Bins, size_um: float, stride_um: float, key_added: str) -> BinGroups:
    """Return the squares of a size, one every `stride_um`; `key_added` begins their name."""
    grid = bins.grid
    size = grid.n_bins(size_um, "size_um", 2)
    stride = grid.n_bins(stride_um, "stride_um", 1)
    windows = list_windows(grid.index, size, stride)
    first = windows.place * stride
    name = f"square_{round(size * grid.pitch_um):03}um"
    if stride != size:
        name += f"_every_{round(stride * grid.pitch_um):03}um"
    factors = dict(bins.factors)
    if factors:
        factors["bin_size_um"] = size * grid.pitch_um
        if "spot_diameter_fullres" in factors:
            factors["spot_diameter_fullres"] *= size
    membership = _membership(windows.window, windows.bin, len(first), len(grid.index))
    obs = _describe(membership, bins)
    obs["array_row"], obs["array_col"] = windows.place.T
    names = (f"{row:05}_{column:05}" for row, column in windows.place)
    obs.index = [f"s_{name.removeprefix('square_')}_{place}-1" for place in names]
    return BinGroups(
        noun="square",
        membership=membership,
        obs=obs,
        centers=grid.places(first + (size - 1) / 2),
        region=f"{key_added}_{name}",
        instances=np.arange(len(first)),
        shapes=_squares(grid, first, size, coordinate_systems(bins.shapes)),
        uns=factors,
    )


def group_by_cells(sdata: "SpatialData", bins: Bins, cells_key: str) -> BinGroups:
    """Return the cells with the center of a bin."""
    import shapely

    if cells_key not in sdata.shapes:
        raise KeyError(f"no shapes {cells_key!r}; pass cells_key= one of {sorted(sdata.shapes)}")
    cells = sdata.shapes[cells_key]
    to_cells = map_between(bins.shapes, cells, cells_key)
    centers = bins.centers @ to_cells[:2, :2].T + to_cells[:2, 2]
    cell_bins = find_cells(cells, centers)
    inside = np.flatnonzero(cell_bins.cell >= 0)
    if not len(inside):
        raise ValueError(
            f"no bin has its center in a shape of {cells_key!r}; check that both are in the same "
            "coordinate system"
        )
    positions, group = np.unique(cell_bins.cell[inside], return_inverse=True)
    membership = _membership(group, inside, len(positions), len(centers))
    obs = _describe(membership, bins)
    ids = cells.index[positions]
    obs.index = ids.astype(str)
    centroids = shapely.centroid(np.asarray(cells.geometry)[positions])
    return BinGroups(
        noun="cell",
        membership=membership,
        obs=obs,
        centers=shapely.get_coordinates(centroids),
        region=cells_key,
        instances=ids.to_numpy(),
        n_shared=cell_bins.n_shared,
        n_empty=len(cells) - len(positions),
    )


def _membership(group: np.ndarray, row: np.ndarray, n_groups: int, n_rows: int) -> "csr_matrix":
    import scipy.sparse

    ones = np.ones(len(row), np.int8)
    matrix = scipy.sparse.csr_matrix((ones, (group, row)), shape=(n_groups, n_rows))
    matrix.sort_indices()
    return matrix


def _describe(membership: "csr_matrix", bins: Bins) -> "pd.DataFrame":
    """Return the number of bins of each group, and whether it is in tissue."""
    import pandas as pd

    n_bins = np.diff(membership.indptr).astype(np.int64)
    obs = pd.DataFrame({"n_bins": n_bins})
    if bins.in_tissue is not None:
        n_in_tissue = membership.astype(np.int64) @ bins.in_tissue.astype(np.int64)
        obs[IN_TISSUE] = (2 * n_in_tissue >= n_bins).astype(np.int64)
    return obs


def _squares(grid: BinGrid, first: np.ndarray, size: int, systems: dict[str, Any]) -> Any:
    """Return squares of `size` bins from the first bin (m, 2) on, in the coordinates of the bins.

    Parameters
    ----------
    grid
        Lattice of the bins.
    first
        Row and column of the first bin of each square.
    size
        Side of a square in bins.
    systems
        Coordinate systems of the bins, each with its transformation.
    """
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel

    corners = np.array([[0, 0], [0, size], [size, size], [size, 0]]) - 0.5
    places = [grid.places(first + corner) for corner in corners]
    polygons = shapely.polygons(np.stack(places, axis=1))
    frame = geopandas.GeoDataFrame(geometry=polygons)
    return ShapesModel.parse(frame, transformations=dict(systems))
