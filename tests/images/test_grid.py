"""Rows and columns of tiles from their centers."""

import numpy as np
import pytest

from stp.images.grid import grid_cells


def test_centers_of_a_grid_have_their_row_and_column():
    cells = np.argwhere(np.random.default_rng(0).random((300, 40)) < 0.5)
    cells -= cells.min(axis=0)
    step = 443.21  # in pixels, to which the centers are rounded
    centers = (cells[:, ::-1] * step).round() + 1000
    np.testing.assert_array_equal(grid_cells(centers, "tiles"), cells)


def test_pieces_of_tissue_far_from_each_other_keep_their_distance():
    cells = np.array([[0, 0], [0, 1], [1, 0], [90, 70], [90, 71], [91, 70]])
    np.testing.assert_array_equal(grid_cells(cells[:, ::-1] * 2.5, "tiles"), cells)


@pytest.mark.parametrize("fault", ["random", "twice"])
def test_places_without_a_grid_are_refused(fault):
    centers = np.random.default_rng(0).random((50, 2)) * 100
    if fault == "twice":
        centers = np.argwhere(np.ones((5, 5))) * 10.0
        centers = np.concatenate([centers, centers[:1]])
    with pytest.raises(ValueError, match="tiles of 'A' lie on no square grid"):
        grid_cells(centers, "tiles of 'A'")
