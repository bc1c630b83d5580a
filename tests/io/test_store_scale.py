"""The physical scale of a store: its sources, and the decision of the user."""

import warnings

import numpy as np
import pytest
import spatialdata
from spatialdata.transformations import remove_transformation

from stp.data.store import SpotStore
from stp.images.slides import find_slides
from stp.io import from_anndata, write_store


def make_square(adata):
    row, col = np.divmod(np.arange(100), 10)
    adata.obs["array_row"], adata.obs["array_col"] = row, col
    adata.obsm["spatial"] = np.column_stack([col, row]) * 50.0 + 25
    return adata


def test_a_square_grid_without_an_image_is_in_um_only_with_its_pitch(adata, tmp_path):
    make_square(adata)
    write_store(adata, tmp_path / "unknown.zarr")
    assert spatialdata.read_zarr(tmp_path / "unknown.zarr").attrs["stp_store"]["unit"] == ""
    write_store(adata, tmp_path / "a.zarr", spot_pitch_um=200)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, adata.obsm["spatial"] * 4
    )
    with pytest.warns(UserWarning, match="um_per_px=3 is used although spot_pitch_um gives 4 "):
        write_store(adata, tmp_path / "b.zarr", spot_pitch_um=200, um_per_px=3)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "b.zarr").coordinates, adata.obsm["spatial"] * 3
    )
    adata.uns["spatial"] = {"lib": {"scalefactors": {"microns_per_pixel": 2.0}}}
    with pytest.raises(ValueError, match=r"scalefactors gives 2 .* spot_pitch_um gives 4;"):
        write_store(adata, tmp_path / "c.zarr", spot_pitch_um=200)


def test_spots_in_um_without_an_image_follow_the_arguments_too(adata, tmp_path):
    sdata = from_anndata(make_square(adata), None, um_per_px=2.0)
    write_store(sdata, tmp_path / "a.zarr")
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, adata.obsm["spatial"] * 2
    )
    write_store(sdata, tmp_path / "b.zarr", spot_pitch_um=100)  # agrees
    with pytest.raises(ValueError, match=r"system um gives 2 .* spot_pitch_um gives 4;"):
        write_store(sdata, tmp_path / "c.zarr", spot_pitch_um=200)
    with pytest.warns(UserWarning, match="um_per_px=4 is used although the coordinate system um"):
        write_store(sdata, tmp_path / "d.zarr", um_per_px=4.0)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "d.zarr").coordinates, adata.obsm["spatial"] * 4
    )


def test_the_pitch_of_a_square_grid_gives_the_scale_of_the_image(adata, image, tmp_path):
    sdata = from_anndata(make_square(adata), image, um_per_px=1.0)
    for element in (sdata["slide_full_image"], sdata["slide"]):
        remove_transformation(element, "um")
    with pytest.raises(ValueError, match=r"no physical scale: .* square grid.* spot_pitch_um="):
        write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=8.0)
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=8.0, spot_pitch_um=100)
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, adata.obsm["spatial"] * 2
    )


def test_a_store_keeps_the_scale_that_its_user_chose(adata, image, tmp_path):
    with pytest.warns(UserWarning, match=r"um_per_px=0\.5 is used although the spot lattice"):
        sdata = from_anndata(adata, image, um_per_px=0.5)
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=2.0)
    store = spatialdata.read_zarr(tmp_path / "a.zarr")
    assert store.attrs["stp_source"]["other_scales"] == pytest.approx({"the spot lattice": 1.0})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="um_per_px=")
        (slide,) = find_slides(store, store["table"])
    assert slide.pyramid.um_per_px == 2.0
    assert slide.other_scales["the spot lattice"] == pytest.approx(4.0)
