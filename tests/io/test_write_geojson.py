"""GeoJSON of scored tiles, as QuPath and geopandas read it."""

import json

import geopandas
import numpy as np
import pytest
import shapely
import spatialdata
from tests.features import example_features, katherlab_25, write_katherlab
from tests.scored_tiles import ALL_KINDS, TILE_UM, log_odds, make_model, score_slide

from stp import tl
from stp.io import read_features, write_geojson


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored")
    score_slide(path)
    return path


@pytest.fixture
def tiles(folder):
    return spatialdata.read_zarr(folder / "tiles.zarr")


def test_geopandas_reads_tiles_in_pixels_of_level_0(tiles, tmp_path):
    write_geojson(tiles, tmp_path / "slide.geojson")
    frame = geopandas.read_file(tmp_path / "slide.geojson")
    table = tiles["table"]
    assert list(frame["name"]) == list(table.obs_names)
    squares = shapely.normalize(frame.geometry.to_numpy())
    centers = shapely.get_coordinates(shapely.centroid(squares))
    np.testing.assert_allclose(centers, table.obsm["spatial"], atol=0.01)
    expected = shapely.normalize(tiles.shapes["wsi"].geometry.to_numpy())
    assert shapely.equals_exact(squares, expected, 0.02).all()


def test_tiles_have_the_measurements_that_qupath_shows(tiles, tmp_path):
    write_geojson(tiles, tmp_path / "slide.geojson")
    content = json.loads((tmp_path / "slide.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    properties = [feature["properties"] for feature in content["features"]]
    assert {item["objectType"] for item in properties} == {"tile"}
    measurements = [item["measurements"] for item in properties]
    table = tiles["table"]
    expected = {
        "attention": table.obs["stp_attention"],
        "attention rank": table.obs["stp_attention_rank"],
        "contribution EGFR_mutated": log_odds(table),
        "contribution EGFR_wild type": -log_odds(table),
    }
    assert {tuple(item) for item in measurements} == {tuple(expected)}
    for name, values in expected.items():
        np.testing.assert_allclose([item[name] for item in measurements], values, atol=1e-6)


def test_several_targets_are_named(tmp_path):
    sdata = score_slide(tmp_path, ALL_KINDS)
    write_geojson(sdata, tmp_path / "slide.geojson")
    feature = json.loads((tmp_path / "slide.geojson").read_text())["features"][0]
    assert list(feature["properties"]["measurements"]) == [
        "attention grade",
        "attention rank grade",
        "attention purity",
        "attention rank purity",
        "attention days",
        "attention rank days",
        "contribution grade_low",
        "contribution grade_middle",
        "contribution grade_high",
        "contribution purity",
        "contribution days_before 100",
        "contribution days_100 to 300",
        "contribution days_from 300",
    ]


def test_missing_scores_are_left_out(tiles, tmp_path):
    tiles["table"].obs.loc[tiles["table"].obs_names[0], "stp_attention"] = np.nan
    write_geojson(tiles, tmp_path / "slide.geojson")
    first, second = json.loads((tmp_path / "slide.geojson").read_text())["features"][:2]
    assert "attention" not in first["properties"]["measurements"]
    assert "attention" in second["properties"]["measurements"]


def test_a_file_is_replaced_only_on_demand(tiles, tmp_path):
    path = tmp_path / "slide.geojson"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_geojson(tiles, path)
    write_geojson(tiles, path, overwrite=True)
    assert len(geopandas.read_file(path)) == tiles["table"].n_obs


def test_a_contradicting_scale_is_refused(tiles, tmp_path):
    with pytest.raises(ValueError, match="um_per_px= is 1, and the tiles were laid at 0.5"):
        write_geojson(tiles, tmp_path / "slide.geojson", um_per_px=1.0)


def test_features_in_um_need_the_scale_of_the_slide(tmp_path):
    corners = [(56 * (n % 3), 56 * (n // 3)) for n in range(6)]
    path = write_katherlab(
        tmp_path / "a.h5", example_features(), corners, **katherlab_25(TILE_UM, 16)
    )
    sdata = read_features(path)
    table = sdata["table"]
    table.obsm["X_stp_images"] = table.obsm["X_features"]
    table.uns["X_stp_images"] = table.uns["X_features"]
    tl.score_tiles(sdata, make_model(table), use_rep="X_features")
    with pytest.raises(ValueError, match="µm per pixel of the slide are not recorded"):
        write_geojson(sdata, tmp_path / "a.geojson")
    write_geojson(sdata, tmp_path / "a.geojson", um_per_px=0.25)
    frame = geopandas.read_file(tmp_path / "a.geojson")
    left, top, right, bottom = frame.geometry.iloc[4].bounds
    assert (left, top, right, bottom) == (224, 224, 448, 448)
