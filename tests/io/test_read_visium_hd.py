"""`read_visium_hd` on a small folder in the layout of Space Ranger 3."""

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tifffile
from tests.slides import write_counts

from stp.images.slides import find_slides
from stp.io import read_visium_hd

UM_PER_PX = 0.5
SIDE = 24  # bins of 16 µm along each side


def write_bins(folder, bin_um, image):
    """Write the bins of one size; returns their counts."""
    import PIL.Image

    rng = np.random.default_rng(bin_um)
    n = SIDE * 16 // bin_um
    row, col = (axis.ravel() for axis in np.mgrid[:n, :n])
    pitch = bin_um / UM_PER_PX
    centers = (np.column_stack([col, row]) + 0.5) * pitch + 100
    counts = scipy.sparse.csr_matrix(rng.poisson(1, (n * n, 4)).astype(np.float32))
    names = [f"s_{bin_um:03}um_{r:05}_{c:05}-1" for r, c in zip(row, col, strict=True)]
    adata = anndata.AnnData(counts, obs=pd.DataFrame(index=names), obsm={"spatial": centers})
    adata.var_names = ["ACTB", "EPCAM", "KRT8", "VIM"]
    (folder / "spatial").mkdir(parents=True)
    write_counts(folder / "filtered_feature_bc_matrix.h5", adata)
    positions = pd.DataFrame({"barcode": names, "in_tissue": 1, "array_row": row})
    positions["array_col"] = col
    positions["pxl_row_in_fullres"] = centers[:, 1]
    positions["pxl_col_in_fullres"] = centers[:, 0]
    shuffled = positions.sample(frac=1, random_state=0)
    shuffled.to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
    factors = {"spot_diameter_fullres": pitch, "bin_size_um": float(bin_um)}
    factors |= {"microns_per_pixel": UM_PER_PX, "regist_target_img_scalef": 0.5}
    factors |= {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1}
    factors["fiducial_diameter_fullres"] = 100.0
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, step in (("hires", 2), ("lowres", 10)):
        picture = PIL.Image.fromarray(image[::step, ::step])
        picture.save(folder / "spatial" / f"tissue_{name}_image.png")
    return adata


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return the folder of a sample, its bins by size, and its image."""
    folder = tmp_path_factory.mktemp("hd")
    image = np.random.default_rng(0).integers(0, 256, (1000, 1100, 3)).astype(np.uint8)
    outs = folder / "sample" / "outs"
    bins = {um: write_bins(outs / f"binned_outputs/square_{um:03}um", um, image) for um in (8, 16)}
    (outs / "feature_slice.h5").touch()
    tifffile.imwrite(folder / "slide.tif", image, tile=(256, 256), photometric="rgb")
    return folder / "sample", bins, image


@pytest.mark.parametrize("bin_um", [8, 16])
@pytest.mark.parametrize("place", ["", "outs", "outs/binned_outputs"])
def test_bins_of_one_size(bin_um, place, sample):
    folder, bins, image = sample
    slide_path = folder.parent / "slide.tif"
    sdata = read_visium_hd(folder / place, bin_um=bin_um, image=slide_path, name="mine")
    key = f"square_{bin_um:03}um"
    assert (list(sdata.tables), list(sdata.shapes)) == ([key], [f"mine_{key}"])
    table = sdata[key]
    adata = bins[bin_um]
    assert table.obs_names.tolist() == adata.obs_names.tolist()
    assert (table.X != adata.X).nnz == 0
    (slide,) = find_slides(sdata, table)
    assert (slide.image_key, slide.coordinate_system) == ("mine_full_image", "um")
    assert slide.pyramid.um_per_px == pytest.approx(UM_PER_PX)
    np.testing.assert_allclose(slide.pyramid.to_pixels(slide.centers), adata.obsm["spatial"])
    squares = sdata[f"mine_{key}"]
    assert squares.area.unique() == pytest.approx((bin_um / UM_PER_PX) ** 2)
    patches = slide.pyramid.read(slide.centers[:3], size=32, um_per_px=UM_PER_PX)
    corners = np.floor(adata.obsm["spatial"][:3] - 15.5).astype(int)
    for patch, (x, y) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, image[y : y + 32, x : x + 32])


def test_bins_of_8_um_are_the_default(sample):
    sdata = read_visium_hd(sample[0])
    assert list(sdata.tables) == ["square_008um"]
    assert sorted(sdata.images) == ["sample_hires_image", "sample_lowres_image"]


def test_errors_of_a_folder_of_visium_hd(sample, tmp_path):
    folder = shutil.copytree(sample[0], tmp_path / "copy")
    with pytest.raises(ValueError, match=r"has no bins of 2 µm; pass bin_um= one of \[8, 16\]"):
        read_visium_hd(folder, bin_um=2)
    tifffile.imwrite(tmp_path / "half.tif", sample[2][::2, ::2], photometric="rgb")
    with pytest.raises(ValueError, match=r"half\.tif"):
        read_visium_hd(folder, image=tmp_path / "half.tif")
    bins = folder / "outs" / "binned_outputs" / "square_008um"
    (bins / "spatial" / "tissue_positions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"square_008um lacks spatial/tissue_positions"):
        read_visium_hd(folder)
    with pytest.raises(FileNotFoundError, match="no Space Ranger folder at"):
        read_visium_hd(tmp_path / "nothing")


def test_a_folder_of_visium_names_its_reader(space_ranger):
    with pytest.raises(ValueError, match=r"is no folder of Visium HD.*stp\.io\.read_visium"):
        read_visium_hd(space_ranger)


def test_real_bins(real):
    sdata = read_visium_hd(real("space_ranger", "VisiumIO"), bin_um=2)
    assert sdata["square_002um"].shape == (10, 10)
    side_um = np.sqrt(sdata["VisiumIO_square_002um"].area.iloc[0]) * 0.2738242950835738
    assert side_um == pytest.approx(2)
