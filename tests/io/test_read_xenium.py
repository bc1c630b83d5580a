"""`read_xenium` on a small folder in the layout of Xenium Onboard Analysis 2."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from tests.slides import make_slide, write_counts

from stp.images.slides import find_slides
from stp.io import read_xenium

PIXEL_UM = 0.2125
# The H&E has 1 µm per pixel and lies a quarter turn against the cells.
HE_TO_XENIUM = np.array([[0, -1 / PIXEL_UM, 6000.0], [1 / PIXEL_UM, 0, 40.0], [0, 0, 1]])


def cell_id(number):
    """Return the name of a cell, whose number 10x writes in hexadecimal with the letters a to p."""
    digits = f"{number:08x}"
    return "".join("abcdefghijklmnop"[int(digit, 16)] for digit in digits) + "-1"


def to_um(pixels):
    """Return the places of cells in µm, from those in the H&E."""
    return (np.column_stack([pixels, np.ones(len(pixels))]) @ HE_TO_XENIUM.T)[:, :2] * PIXEL_UM


def write_xenium(folder, adata):
    folder.mkdir()
    specs = {"pixel_size": PIXEL_UM, "analysis_sw_version": "xenium-2.0.0.6"}
    (folder / "experiment.xenium").write_text(json.dumps(specs))
    n_cells = adata.n_obs
    adata.obs_names = [cell_id(number) for number in range(n_cells)]
    write_counts(folder / "cell_feature_matrix.h5", adata)
    um = to_um(adata.obsm["spatial"])
    cells = pd.DataFrame({"cell_id": adata.obs_names, "x_centroid": um[:, 0]})
    cells["y_centroid"] = um[:, 1]
    cells["cell_area"] = 78.5
    cells.to_parquet(folder / "cells.parquet")
    corners = um[:, None] + np.array([[-5, -5], [5, -5], [5, 5], [-5, 5], [-5, -5]])
    boundaries = pd.DataFrame(corners.reshape(-1, 2), columns=["vertex_x", "vertex_y"])
    boundaries["cell_id"] = np.repeat(adata.obs_names.to_numpy(), 5)
    boundaries["label_id"] = np.repeat(np.arange(n_cells) + 1, 5)
    boundaries.to_parquet(folder / "cell_boundaries.parquet")
    with zarr.storage.ZipStore(folder / "cells.zarr.zip", mode="w") as store:
        group = zarr.create_group(store, zarr_format=2)
        ids = np.column_stack([np.arange(n_cells), np.ones(n_cells)]).astype(np.uint32)
        group.create_array("cell_id", data=ids)
        columns = {"column_names": ["z_level", "nucleus_count"]}
        group.create_array("cell_summary", data=np.zeros((n_cells, 2)), attributes=columns)
        for index in range(2):
            group.create_array(f"polygon_sets/{index}/cell_index", data=np.arange(n_cells))


@pytest.fixture
def slide():
    return make_slide()


@pytest.fixture
def xenium(slide, tmp_path):
    adata, image = slide
    folder = tmp_path / "output"
    write_xenium(folder, adata)
    tifffile.imwrite(tmp_path / "he.tif", image, tile=(256, 256), photometric="rgb")
    np.savetxt(tmp_path / "he_alignment.csv", HE_TO_XENIUM, delimiter=",")
    return folder


def assert_cells_lie_on_their_pixels(sdata, name, adata, image):
    (slide,) = find_slides(sdata, sdata["table"])
    assert (slide.region, slide.image_key) == (name, f"{name}_full_image")
    assert slide.coordinate_system == "um"
    assert slide.pyramid.um_per_px == pytest.approx(1.0)
    np.testing.assert_allclose(slide.centers, to_um(adata.obsm["spatial"]))
    np.testing.assert_allclose(slide.pyramid.to_pixels(slide.centers), adata.obsm["spatial"])
    patches = slide.pyramid.read(slide.centers, size=32, um_per_px=1.0)
    corners = np.floor(adata.obsm["spatial"] - 15.5).astype(int)
    for patch, (x, y) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, image[y : y + 32, x : x + 32])


def test_cells_with_an_aligned_image(xenium, slide):
    adata, image = slide
    sdata = read_xenium(xenium, image=xenium.parent / "he.tif", name="mine")
    table = sdata["table"]
    assert table.obs_names.tolist() == adata.obs_names.tolist()
    assert (table.X != adata.X).nnz == 0
    assert sorted(sdata.shapes) == ["mine", "mine_boundaries"]
    assert_cells_lie_on_their_pixels(sdata, "mine", adata, image)
    assert sdata["mine_boundaries"].area.iloc[0] == pytest.approx(100)


def test_the_image_in_the_folder_is_found(xenium, slide):
    (xenium.parent / "he.tif").rename(xenium / "lung_he_image.ome.tif")
    (xenium.parent / "he_alignment.csv").rename(xenium / "lung_he_imagealignment.csv")
    assert_cells_lie_on_their_pixels(read_xenium(xenium), "output", *slide)


def test_cells_without_an_image(xenium):
    sdata = read_xenium(xenium)
    assert list(sdata.images) == []
    assert sdata["table"].n_obs == 100


def test_an_image_needs_an_alignment_or_the_pixels_of_xenium(xenium, slide):
    image = xenium.parent / "he.tif"
    (xenium.parent / "he_alignment.csv").unlink()
    with pytest.raises(ValueError, match=r"no alignment of he\.tif .*put he_alignment\.csv"):
        read_xenium(xenium, image=image)
    with pytest.raises(
        ValueError, match=r"he\.tif has 1 µm per pixel, but the pixel size .* gives 0\.2125"
    ):
        read_xenium(xenium, image=image, um_per_px=1.0)


def test_a_scale_that_contradicts_the_alignment_is_refused(xenium):
    image = xenium.parent / "he.tif"
    with pytest.raises(ValueError, match=r"has 0\.5 µm per pixel, but he_alignment\.csv gives 1"):
        read_xenium(xenium, image=image, um_per_px=0.5)


def test_the_alignment_of_another_image_is_refused(xenium):
    np.savetxt(xenium.parent / "he_alignment.csv", HE_TO_XENIUM + [[0, 0, 9e4]] * 3, delimiter=",")
    with pytest.raises(ValueError):
        read_xenium(xenium, image=xenium.parent / "he.tif")
    np.savetxt(xenium.parent / "he_alignment.csv", np.zeros((3, 3)), delimiter=",")
    with pytest.raises(ValueError, match=r"he_alignment\.csv is no alignment"):
        read_xenium(xenium, image=xenium.parent / "he.tif")


def test_cells_that_do_not_lie_on_the_image_are_refused(xenium):
    moved = HE_TO_XENIUM + np.array([[0, 0, 90_000], [0, 0, 0], [0, 0, 0]])
    np.savetxt(xenium.parent / "he_alignment.csv", moved, delimiter=",")
    with pytest.raises(ValueError, match=r"spot centers lie on he\.tif"):
        read_xenium(xenium, image=xenium.parent / "he.tif")


def test_a_folder_that_is_none_of_xenium_is_named(xenium, tmp_path):
    with pytest.raises(FileNotFoundError, match="no Xenium folder at"):
        read_xenium(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"lacks experiment\.xenium.* one of .* output"):
        read_xenium(tmp_path)
    (xenium / "cells.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"output lacks cells\.parquet;"):
        read_xenium(xenium)
