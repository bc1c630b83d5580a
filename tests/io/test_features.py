"""Features of other tools as a SpatialData, and ours as a file of KatherLab's STAMP."""

import h5py
import numpy as np
import pytest
import scanpy as sc
import spatialdata
from tests.features import (
    CORNERS,
    SORTED,
    example_features,
    katherlab_25,
    tiny_encoder,
    write_clam,
    write_clam_tensor,
    write_katherlab,
    write_lazyslide,
    write_trident,
    write_wsi,
)

from stp import tl
from stp.data.feature_files import open_features
from stp.io import read_features, read_wsi, write_features, write_tiles

FEATURES = example_features()


def katherlab(folder):
    half = FEATURES.astype(np.float16)
    return write_katherlab(folder / "slide.h5", half, CORNERS * 128, **katherlab_25(128.0, 256))


def trident(folder):
    return write_trident(folder / "slide.h5", FEATURES, CORNERS * 512)


def clam(folder):
    return write_clam(folder / "slide.h5", FEATURES, CORNERS * 512)


def lazyslide(folder):
    return write_lazyslide(folder / "slide.zarr", FEATURES, CORNERS * 512)


@pytest.mark.parametrize(
    ("write", "scale", "um_per_px"),
    [
        (katherlab, {}, 0.5),
        (trident, {"um_per_px": 0.25}, 0.5),
        (clam, {"um_per_px": 0.25, "tile_um": 128}, None),
        (lazyslide, {}, 0.5),
    ],
)
def test_tiles_of_every_tool_are_squares_at_their_places(tmp_path, write, scale, um_per_px):
    sdata = read_features(write(tmp_path), **scale)
    table = sdata["table"]
    expected = FEATURES.astype(np.float16 if write is katherlab else np.float32)[SORTED]
    np.testing.assert_array_equal(table.obsm["X_features"], expected)
    assert table.obsm["X_features"].dtype == np.float32
    assert table.shape == (6, 0)
    squares = spatialdata.transform(sdata.shapes["slide"], to_coordinate_system="um")
    bounds = squares.geometry.bounds.to_numpy()
    corners = CORNERS[SORTED] * 128
    np.testing.assert_allclose(bounds, np.hstack([corners, corners + 128]))
    details = table.uns["X_features"]
    assert details["params"]["tile_um"] == 128
    assert details["params"]["um_per_px"] == um_per_px
    assert details["model"] == open_features(tmp_path / details["params"]["path"]).model


def test_places_lie_on_the_pixels_of_the_slide_if_its_scale_is_known(tmp_path):
    sdata = read_features(trident(tmp_path), um_per_px=0.25)
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], CORNERS[SORTED] * 512 + 256)
    assert set(sdata.coordinate_systems) == {"global", "um"}
    in_um = read_features(katherlab(tmp_path))
    np.testing.assert_array_equal(in_um["table"].obsm["spatial"], CORNERS[SORTED] * 128 + 64)
    assert in_um.coordinate_systems == ["um"]


@pytest.mark.parametrize("write", [trident, clam])
def test_without_a_scale_tiles_have_features_and_no_places(tmp_path, write):
    sdata = read_features(write(tmp_path))
    np.testing.assert_array_equal(sdata["table"].obsm["X_features"], FEATURES[SORTED])
    assert "spatial" not in sdata["table"].obsm
    assert not sdata.shapes
    with pytest.raises(ValueError, match=r"um_per_px= and tile_um= to stp\.io\.read_features"):
        write_features(sdata, tmp_path / "out.h5", use_rep="X_features")


def test_the_vector_of_a_slide_and_an_empty_bag_are_tables(tmp_path):
    vector = write_katherlab(tmp_path / "titan.h5", FEATURES[0], encoder="titan")
    table = read_features(vector, name="a slide", key_added="X_titan")["table"]
    assert list(table.obs_names) == ["a_slide_0"]
    np.testing.assert_array_equal(table.obsm["X_titan"], FEATURES[:1])
    assert table.uns["X_titan"]["model"]["name"] == "titan"
    empty = write_clam_tensor(tmp_path / "empty.pt", np.empty((0, 8), np.float32))
    assert read_features(empty)["table"].obsm["X_features"].shape == (0, 8)
    empty = write_trident(tmp_path / "empty.h5", np.empty((0, 8), np.float32), np.empty((0, 2)))
    write_tiles(read_features(empty, um_per_px=0.25), tmp_path / "empty.zarr")
    assert open_features(tmp_path / "empty.zarr", use_rep="X_features").read().shape == (0, 8)


@pytest.mark.parametrize(
    ("write", "scale"),
    [(katherlab, {}), (trident, {"um_per_px": 0.25}), (trident, {}), (lazyslide, {})],
)
def test_features_of_others_become_tile_stores_that_keep_their_record(tmp_path, write, scale):
    path = write(tmp_path)
    write_tiles(read_features(path, **scale), tmp_path / "tiles.zarr")
    original = open_features(path, **scale)
    stored = open_features(tmp_path / "tiles.zarr", use_rep="X_features")
    assert stored.writer == "tile store"
    assert (stored.tile_um, stored.um_per_px) == (original.tile_um, original.um_per_px)
    assert stored.model == original.model
    np.testing.assert_array_equal(stored.read(), original.read())
    if scale or write is not trident:
        np.testing.assert_allclose(stored.centers(), original.centers())
    else:
        assert stored.centers() is None


def test_the_table_serves_scanpy_and_verbs(tmp_path):
    table = read_features(katherlab(tmp_path))["table"]
    tl.fuse(table, use_reps="X_features")
    np.testing.assert_array_equal(table.obsm["X_stp_fused"], table.obsm["X_features"])
    sc.pp.neighbors(
        table, use_rep="X_features", n_neighbors=3, transformer="sklearn", method="gauss"
    )
    assert table.obsp["connectivities"].shape == (6, 6)


@pytest.fixture
def slide(tmp_path):
    sdata = read_wsi(write_wsi(tmp_path / "slide.tif", um_per_px=0.5), tile_um=56)
    tl.embed_images(sdata, tiny_encoder(), progress=False)
    return sdata


def test_the_layout_of_katherlab_is_what_its_reader_expects(slide, tmp_path):
    """Its reader: `tile_size_um` makes the places µm, and `tile_size_px` gives the scale."""
    write_features(slide, tmp_path / "features" / "slide.h5")
    with h5py.File(tmp_path / "features" / "slide.h5") as file:
        np.testing.assert_array_equal(file["feats"][:], slide["table"].obsm["X_stp_images"])
        corners = slide["table"].obsm["spatial"] * 0.5 - 28
        np.testing.assert_allclose(file["coords"][:], corners)
        assert file["coords"].dtype == np.float32
        attributes = dict(file.attrs)
    assert attributes["tile_size_um"] == 56
    assert attributes["tile_size_px"] == 16  # of 3.5 µm
    assert attributes["unit"] == "um"
    assert attributes["extractor"] == "ImageEncoder"
    assert attributes["feat_type"] == "tile"
    assert [int(part) for part in attributes["stamp_version"].split(".")] <= [2, 5, 0]


def test_features_come_back_with_their_model(slide, tmp_path):
    write_features(slide, tmp_path / "slide.h5")
    table = read_features(tmp_path / "slide.h5")["table"]
    np.testing.assert_array_equal(table.obsm["X_features"], slide["table"].obsm["X_stp_images"])
    np.testing.assert_allclose(table.obsm["spatial"], slide["table"].obsm["spatial"] * 0.5)
    assert table.uns["X_features"]["model"]["digest"] == tiny_encoder().digest


def test_features_that_katherlab_could_not_read_are_refused(slide, tmp_path, sdata):
    with pytest.raises(ValueError, match="must end with .h5"):
        write_features(slide, tmp_path / "slide.hdf5")
    with pytest.raises(KeyError, match=r"obsm\['X_other'\] is missing"):
        write_features(slide, tmp_path / "slide.h5", use_rep="X_other")
    sdata["table"].obsm["X_other"] = np.ones((sdata["table"].n_obs, 3))
    with pytest.raises(ValueError, match="needs the side and the places of the tiles"):
        write_features(sdata, tmp_path / "slide.h5", use_rep="X_other")
    slide["table"].obsm["X_stp_images"][2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in row 2"):
        write_features(slide, tmp_path / "slide.h5")
    assert not (tmp_path / "slide.h5").exists()
