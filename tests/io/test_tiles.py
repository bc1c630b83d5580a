"""Tile stores: the table of a slide, its tiles and a thumbnail, without the slide's pixels."""

import shutil

import numpy as np
import PIL.Image
import pytest
import scanpy as sc
import spatialdata
import tifffile
import zarr
from tests.features import tiny_encoder, write_wsi

from stp import pl, tl
from stp._lock import lock
from stp.data.feature_files import open_features
from stp.io import read_wsi, write_results, write_tiles

TILE_UM = 56


@pytest.fixture
def slide(tmp_path):
    """The tiles of a small slide, embedded."""
    sdata = read_wsi(
        write_wsi(tmp_path / "slide.tif"), tile_um=TILE_UM, name="a slide".replace(" ", "_")
    )
    tl.embed_images(sdata, tiny_encoder(), progress=False)
    return sdata


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tiles.zarr"


def test_a_store_has_the_table_and_no_pixels_of_the_slide(slide, path):
    write_tiles(slide, path)
    stored = spatialdata.read_zarr(path)
    assert list(stored.images) == ["thumbnail"]
    assert list(stored.shapes) == ["a_slide"]
    table, expected = stored["table"], slide["table"]
    assert list(table.obs_names) == list(expected.obs_names)
    for key in ("spatial", "X_stp_images"):
        np.testing.assert_array_equal(table.obsm[key], expected.obsm[key])
    assert table.uns["X_stp_images"]["model"]["digest"] == tiny_encoder().digest
    squares = stored.shapes["a_slide"]
    assert (squares.geometry.area == TILE_UM**2).all()
    centers = np.column_stack([squares.geometry.centroid.x, squares.geometry.centroid.y])
    np.testing.assert_allclose(centers, expected.obsm["spatial"])


def test_the_record_names_the_file_its_scale_and_how_tiles_were_laid(slide, path, tmp_path):
    write_tiles(slide, path)
    record = spatialdata.read_zarr(path).attrs["stp_slide"]
    status = (tmp_path / "slide.tif").stat()
    assert record.pop("version")
    assert record == {
        "path": str(tmp_path / "slide.tif"),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "um_per_px": 1.0,
        "um_per_px_source": "the file's metadata",
        "um_per_unit": 1.0,
        "tile_um": TILE_UM,
        "min_tissue": 0.5,
        "tissue": "stain",
        "tissue_class": None,
    }


def test_the_thumbnail_is_the_slide_at_a_coarse_scale(tmp_path, path):
    """It is larger than one block of pixels, and no multiple of blocks."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 680, 3), np.uint8)
    pixels[:224, :224] = (215, 130, 175)  # a tile of tissue
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", tile=(128, 128))
    sdata = read_wsi(tmp_path / "slide.tif", um_per_px=0.5, tile_um=112)
    write_tiles(sdata, path, thumbnail_um=2.0)
    thumbnail = np.moveaxis(spatialdata.read_zarr(path).images["thumbnail"].to_numpy(), 0, -1)
    expected = PIL.Image.fromarray(pixels).resize((170, 150), PIL.Image.Resampling.BILINEAR)
    difference = np.abs(thumbnail.astype(int) - np.asarray(expected))
    assert (difference > 1).mean() < 0.03  # of blocks at their borders


def test_a_slide_coarser_than_the_thumbnail_keeps_its_pixels(tmp_path, path):
    with pytest.warns(UserWarning, match="um_per_px=10 is used"):
        sdata = read_wsi(write_wsi(tmp_path / "slide.tif"), um_per_px=10.0, tile_um=560)
    write_tiles(sdata, path)
    thumbnail = spatialdata.read_zarr(path).images["thumbnail"].to_numpy()
    expected = np.moveaxis(tifffile.imread(tmp_path / "slide.tif"), -1, 0)
    np.testing.assert_array_equal(thumbnail, expected)


def test_embeddings_are_stored_in_chunks_of_whole_rows(slide, path):
    table = slide["table"]
    table.obsm["X_wide"] = np.zeros((table.n_obs, 2**18), np.float32)
    write_tiles(slide, path)
    obsm = zarr.open_group(path, mode="r")["tables/table/obsm"]
    assert obsm["X_stp_images"].chunks == (table.n_obs, 32)
    assert obsm["X_wide"].chunks == (4, 2**18)  # 4 MiB


def test_the_features_are_read_without_spatialdata(slide, path):
    write_tiles(slide, path)
    file = open_features(path)
    assert (file.writer, file.n_tiles, file.width) == ("tile store", slide["table"].n_obs, 32)
    assert (file.tile_um, file.um_per_px) == (TILE_UM, 3.5)
    record = {**slide["table"].uns["X_stp_images"]["model"]}
    assert file.model == {key: record[key] for key in ("name", "class", "digest")}
    np.testing.assert_array_equal(file.read(), slide["table"].obsm["X_stp_images"])
    np.testing.assert_allclose(file.centers(), slide["table"].obsm["spatial"])


def test_centers_are_in_um_whatever_the_pixels_are(tmp_path, path):
    sdata = read_wsi(write_wsi(tmp_path / "slide.tif", um_per_px=0.5), tile_um=TILE_UM)
    tl.embed_images(sdata, tiny_encoder(), progress=False)
    write_tiles(sdata, path)
    file = open_features(path)
    np.testing.assert_allclose(file.centers(), sdata["table"].obsm["spatial"] * 0.5)


def test_the_table_of_a_store_serves_verbs_and_scanpy(slide, path):
    write_tiles(slide, path)
    stored = spatialdata.read_zarr(path)
    table = stored["table"]
    sc.pp.neighbors(
        table, use_rep="X_stp_images", n_neighbors=5, transformer="sklearn", method="gauss"
    )
    tl.fuse(table, use_reps="X_stp_images")
    write_results(stored, keys=["X_stp_fused"])
    assert "X_stp_fused" in spatialdata.read_zarr(path)["table"].obsm
    assert pl.tissue(stored, show=False) is not None
    with pytest.raises(ValueError, match="the image has 8 µm per pixel"):
        tl.embed_images(stored, tiny_encoder(), progress=False)


def test_a_store_of_a_part_of_the_tiles_has_only_their_squares(slide, path):
    slide.tables["table"] = slide["table"][[3, 1]].copy()
    write_tiles(slide, path)
    stored = spatialdata.read_zarr(path)
    assert len(stored.shapes["a_slide"]) == 2
    np.testing.assert_array_equal(
        open_features(path).read(), slide["table"].obsm["X_stp_images"][::-1]
    )


def test_a_store_is_written_again_from_itself(slide, path, tmp_path):
    write_tiles(slide, path)
    first = spatialdata.read_zarr(path)
    thumbnail = first.images["thumbnail"].to_numpy()
    write_tiles(first, path, overwrite=True)
    again = spatialdata.read_zarr(path)
    np.testing.assert_array_equal(again["table"].obsm["spatial"], slide["table"].obsm["spatial"])
    np.testing.assert_array_equal(again.images["thumbnail"].to_numpy(), thumbnail)
    assert again.attrs["stp_slide"] == slide.attrs["stp_slide"]
    assert {file.name for file in tmp_path.iterdir()} == {"slide.tif", "tiles.zarr"}


def test_what_is_there_is_not_replaced_by_accident(slide, path):
    write_tiles(slide, path)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_tiles(slide, path)
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(FileExistsError, match="is no store, so it is not replaced"):
        write_tiles(slide, path, overwrite=True)
    with (
        lock(path.with_name("other.zarr"), "writing to", wait=False),
        pytest.raises(BlockingIOError, match="is writing to"),
    ):
        write_tiles(slide, path.with_name("other.zarr"))


def test_a_slide_without_a_record_or_tiles_is_refused(slide, path, sdata, tmp_path):
    with pytest.raises(ValueError, match=r"no record of the slide .* stp\.io\.read_wsi"):
        write_tiles(sdata, path)
    with pytest.raises(KeyError, match="no table 'table'"):
        write_tiles(read_wsi(tmp_path / "slide.tif"), path)
    with pytest.raises(ValueError, match="thumbnail_um must be positive, not 0"):
        write_tiles(slide, path, thumbnail_um=0)
