"""The row and the column of tiles that were laid on a square grid."""

import numpy as np
from scipy.spatial import cKDTree

SAME_LINE = 0.25  # largest distance from a line of the grid, as a share of its step


def grid_cells(centers: np.ndarray, label: str) -> np.ndarray:
    """Return the row and the column (n, 2) of each tile on the grid that tiles were laid on.

    The step of the grid is the median distance of a tile to its nearest neighbor.

    Parameters
    ----------
    centers
        Centers of the tiles (n, 2) as x, y in any unit.
    label
        Name of the tiles in an error.

    Raises
    ------
    ValueError
        The tiles lie on no square grid, or two of them have one place.
    """
    if len(centers) < 2:
        return np.zeros((len(centers), 2), np.int64)
    distances, _ = cKDTree(centers).query(centers, k=2)
    step = float(np.median(distances[:, 1]))
    cells = np.column_stack([_lines(centers[:, axis], step) for axis in (1, 0)])
    if step <= 0 or (cells < 0).any() or len(np.unique(cells, axis=0)) < len(cells):
        raise ValueError(
            f"{label} lie on no square grid, so their map cannot be shifted; lay tiles with "
            "stp.io.read_wsi(path, tile_um=...), or keep each place once"
        )
    return cells


def _lines(values: np.ndarray, step: float) -> np.ndarray:
    """Return the number of the line (n,) on which each coordinate lies, all -1 if there is none.

    Lines are counted from neighbor to neighbor, so that rounded coordinates do not add up.
    """
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order]) / step if step > 0 else np.ones(len(values) - 1)
    n_lines = gaps.round()
    if (np.abs(gaps - n_lines) > SAME_LINE).any():
        return np.full(len(values), -1)
    lines = np.empty(len(values), np.int64)
    lines[order] = np.concatenate([[0], np.cumsum(n_lines)])
    return lines
