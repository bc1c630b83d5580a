"""Centers of labels and shapes are those that spatialdata computes."""

import dask.array
import geopandas
import numpy as np
import pytest
import shapely
from spatialdata import get_centroids
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Affine

from stp.images.coordinates import centroids_of
from stp.images.label_centers import label_centers

QUARTER = shapely.box(0, 0, 45, 45)


@pytest.fixture
def raster():
    rng = np.random.default_rng(0)
    raster = np.repeat(np.repeat(rng.integers(0, 40, (17, 23)), 3, axis=0), 4, axis=1)
    raster[0, :] = 0
    return raster.astype(np.int32)


@pytest.mark.parametrize("chunks", [(51, 92), (7, 11), (50, 1)])
def test_centers_do_not_depend_on_the_blocks(raster, chunks):
    ids, centers = label_centers(dask.array.from_array(raster, chunks=chunks))
    assert np.array_equal(ids, np.unique(raster[raster > 0]))
    for label, center in zip(ids, centers, strict=True):
        rows, columns = np.nonzero(raster == label)
        np.testing.assert_allclose(center, (columns.mean() + 0.5, rows.mean() + 0.5))


def test_an_array_that_is_not_divided(raster):
    ids, centers = label_centers(raster)
    expected_ids, expected = label_centers(dask.array.from_array(raster, chunks=(8, 8)))
    assert np.array_equal(ids, expected_ids)
    np.testing.assert_allclose(centers, expected)


def test_a_raster_without_labels_has_no_centers():
    ids, centers = label_centers(np.zeros((5, 4), np.int64))
    assert ids.shape == (0,) and centers.shape == (0, 2)


@pytest.mark.parametrize("scale_factors", [None, [2]])
def test_centers_in_a_coordinate_system_are_those_of_spatialdata(raster, scale_factors):
    matrix = [[0.5, 0.1, 7.0], [-0.1, 0.5, 3.0], [0, 0, 1]]
    to_um = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    labels = Labels2DModel.parse(
        raster, dims=("y", "x"), transformations={"um": to_um}, scale_factors=scale_factors
    )
    expected = get_centroids(labels, coordinate_system="um").compute()[["x", "y"]]
    centers = centroids_of(labels, "um")
    np.testing.assert_allclose(centers.loc[expected.index], expected)
    assert len(centers) == len(expected)


@pytest.mark.parametrize("kind", ["circles", "polygons"])
def test_centers_of_shapes_in_a_coordinate_system_are_those_of_spatialdata(kind):
    points = shapely.points(np.random.default_rng(0).uniform(0, 90, (30, 2)))
    columns = {"geometry": points, "radius": 2.0}
    if kind == "polygons":
        columns = {"geometry": [point.buffer(60).difference(QUARTER) for point in points]}
    frame = geopandas.GeoDataFrame(columns)
    frame.index = [f"spot{number}" for number in frame.index[::-1]]
    matrix = [[0.5, 0.1, 7.0], [-0.1, 0.5, 3.0], [0, 0, 1]]
    to_um = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    shapes = ShapesModel.parse(frame, transformations={"um": to_um})
    expected = get_centroids(shapes, coordinate_system="um").compute()[["x", "y"]]
    centers = centroids_of(shapes, "um")
    np.testing.assert_allclose(centers.loc[expected.index], expected)
    assert len(centers) == len(expected) > 10
