"""Bins of a square lattice, such as those of Visium HD: larger windows, and cells over them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.images.lattice import Lattice, fit_lattice

if TYPE_CHECKING:
    import pandas as pd

SNAP = 0.03  # a pitch so near to a whole number of µm is that number
MAX_OFF = 0.2  # a size may be this share of a bin off a multiple of it


@dataclass(frozen=True)
class BinGrid:
    """The lattice of the bins of a slide.

    Parameters
    ----------
    index
        Row and column of each bin (n, 2).
    to_place
        Map (3, 2) from row, column and 1 to the center x, y of a bin.
    pitch_um
        µm between neighboring bins.
    """

    index: np.ndarray
    to_place: np.ndarray
    pitch_um: float

    def places(self, index: np.ndarray) -> np.ndarray:
        """Return x, y (m, 2) of places that are given by row and column (m, 2)."""
        return np.column_stack([index, np.ones(len(index))]) @ self.to_place

    def n_bins(self, size_um: float, name: str, least: int) -> int:
        """Return how many bins a length has.

        Parameters
        ----------
        size_um
            Length in µm.
        name
            Name of the argument in an error.
        least
            Smallest number of bins.

        Raises
        ------
        ValueError
            The length is no multiple of the bins, or too small.
        """
        ratio = size_um / self.pitch_um
        n = round(ratio)
        if n < least or abs(ratio - n) > MAX_OFF:
            first = max(least, int(ratio))
            sizes = [f"{number * self.pitch_um:g}" for number in (first, first + 1)]
            raise ValueError(
                f"{name}={size_um:g} is no multiple of the bins of {self.pitch_um:g} µm that can "
                f"be used here; pass {name}= {' or '.join(sizes)}"
            )
        return n


def find_grid(obs: "pd.DataFrame", centers: np.ndarray, um_per_unit: float, name: str) -> BinGrid:
    """Return the lattice of bins.

    Parameters
    ----------
    obs
        Table of the bins with their lattice indices `array_row` and `array_col`.
    centers
        Centers (n, 2) of the bins in any unit.
    um_per_unit
        µm per unit of the centers.
    name
        Name of the bins in an error.

    Raises
    ------
    ValueError
        The bins are on no square lattice, or one has no index.
    """
    lattice = fit_square_lattice(obs, centers, name)
    index = obs[["array_row", "array_col"]].to_numpy(dtype=float)
    if not np.isfinite(index).all() or (index != np.floor(index)).any():
        raise ValueError(
            f"array_row or array_col of {name} has a value that is no whole number; leave these "
            "rows out"
        )
    design = np.column_stack([index, np.ones(len(index))])
    to_place = np.linalg.lstsq(design, centers, rcond=None)[0]
    pitch_um = um_per_unit * (lattice.row_distance * lattice.column_distance) ** 0.5
    if abs(pitch_um - round(pitch_um)) <= SNAP * pitch_um:
        pitch_um = float(round(pitch_um))
    return BinGrid(index.astype(np.int64), to_place, pitch_um)


def fit_square_lattice(obs: "pd.DataFrame", centers: np.ndarray, name: str) -> Lattice:
    """Return the square lattice of bins, or raise ValueError if they are on none."""
    lattice = fit_lattice(obs, centers)
    if lattice is None or lattice.kind != "square":
        raise ValueError(
            f"{name} is no square lattice of bins: obs needs array_row and array_col that fit the "
            "centers; stp.io.read_visium_hd reads such bins"
        )
    return lattice


class Windows(NamedTuple):
    """Squares of several bins, and which bins they have."""

    place: np.ndarray  # (m, 2): row and column of the square, by rows
    window: np.ndarray  # (k,) square of each pair
    bin: np.ndarray  # (k,) bin of each pair


def list_windows(index: np.ndarray, size: int, stride: int) -> Windows:
    """Return all squares of `size` bins, one every `stride` bins, that have a bin.

    Square (i, j) has the bins from row `stride * i` and column `stride * j` on, as in Space Ranger.

    Parameters
    ----------
    index
        Row and column of each bin (n, 2).
    size
        Side of a square in bins.
    stride
        Bins from one square to the next, at most `size`.
    """
    bins = []
    places = []
    n_covers = -(-size // stride)  # squares over a bin, along each side, at most
    for row_shift in range(n_covers):
        for column_shift in range(n_covers):
            place = index // stride - [row_shift, column_shift]
            is_covered = ((place >= 0) & (index - place * stride < size)).all(axis=1)
            bins.append(np.flatnonzero(is_covered))
            places.append(place[is_covered])
    rows, columns = np.concatenate(places).T
    n_columns = columns.max(initial=0) + 1
    unique, window = np.unique(rows * n_columns + columns, return_inverse=True)
    return Windows(np.column_stack(np.divmod(unique, n_columns)), window, np.concatenate(bins))


class CellBins(NamedTuple):
    """The cell of each bin."""

    cell: np.ndarray  # (n,) position of the cell in the shapes, or -1
    n_shared: int  # bins that lie in several cells


def find_cells(cells: Any, centers: np.ndarray) -> CellBins:
    """Return in which cell the center of each bin lies.

    A bin in several cells belongs to the one whose centroid is nearest, or else to the first.

    Parameters
    ----------
    cells
        Shapes of SpatialData: polygons, or points with a radius.
    centers
        Centers (n, 2) of the bins in the coordinates of the shapes.
    """
    import shapely

    shapes = np.asarray(cells.geometry)
    if "radius" in cells:
        shapes = shapely.buffer(shapes, cells["radius"].to_numpy(dtype=float))
    tree = shapely.STRtree(shapes)
    bins, inside = tree.query(shapely.points(centers), predicate="intersects")
    centroids = shapely.get_coordinates(shapely.centroid(shapes[inside]))
    distance = np.linalg.norm(centroids - centers[bins], axis=1)
    order = np.lexsort((inside, distance, bins))
    bins = bins[order]
    is_first = np.diff(bins, prepend=-1) > 0
    cell = np.full(len(centers), -1)
    cell[bins[is_first]] = inside[order][is_first]
    n_shared = len(np.unique(bins[~is_first]))
    return CellBins(cell, n_shared)
