"""An image may be any array, a PIL image or xarray; anything else is refused with the list."""

import dask.array
import numpy as np
import PIL.Image
import pytest
import torch
import xarray
import zarr

from stp.images import ImagePyramid
from stp.io import from_anndata, read_visium, read_xenium


@pytest.fixture
def colors():
    """Pixels (40, 60, 3) of which no two are equal, so that swapped axes are seen."""
    pixels = np.arange(40 * 60 * 3).reshape(40, 60, 3) % 251
    return pixels.astype(np.uint8)


def read_back(image, shape=(40, 60)):
    """Return the pixels (y, x, 3) that a pyramid reads from an image."""
    pyramid = ImagePyramid.from_array(image, 1.0)
    assert pyramid.levels[0].shape == shape
    return pyramid.levels[0].read(0, shape[0], 0, shape[1])


def with_zarr(colors):
    return zarr.array(colors, chunks=(16, 16, 3))


FORMS = {
    "numpy": lambda colors: colors,
    "numpy, channels first": lambda colors: np.moveaxis(colors, -1, 0),
    "dask": lambda colors: dask.array.from_array(colors, chunks=(16, 16, 3)),
    "zarr": with_zarr,
    "PIL": PIL.Image.fromarray,
    "xarray": lambda colors: xarray.DataArray(colors, dims=("y", "x", "c")),
    "xarray, other names": lambda colors: xarray.DataArray(
        colors.transpose(1, 2, 0), dims=("Width", "Channel", "Height")
    ),
    "xarray without names": xarray.DataArray,
    "xarray of dask": lambda colors: xarray.DataArray(
        dask.array.from_array(colors), dims=("y", "x", "c")
    ),
    "xarray, channels b, g, r": lambda colors: xarray.DataArray(
        colors[..., ::-1], dims=("y", "x", "c"), coords={"c": ["B", "G", "R"]}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_an_image_have_the_same_pixels(form, colors):
    np.testing.assert_array_equal(read_back(FORMS[form](colors)), colors)


def test_a_table_and_an_image_of_any_form_are_joined(adata, image, sdata):
    forms = [
        PIL.Image.fromarray(image),
        dask.array.from_array(image, chunks=(512, 512, 3)),
        xarray.DataArray(image, dims=("y", "x", "c")),
        sdata["slide_full_image"],
    ]
    for form in forms:
        joined = from_anndata(adata, form, um_per_px=1.0)["slide_full_image"]
        np.testing.assert_array_equal(joined.transpose("y", "x", "c").to_numpy(), image)


def test_a_multiscale_image_keeps_its_levels(adata, image):
    from spatialdata.models import Image2DModel

    element = Image2DModel.parse(image, dims=("y", "x", "c"), scale_factors=[2])
    joined = from_anndata(adata, element, um_per_px=1.0)["slide_full_image"]
    for scale in ("scale0", "scale1"):
        np.testing.assert_array_equal(joined[scale]["image"], element[scale]["image"])


def test_transparent_pixels_of_a_PIL_image_are_white(colors):
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:10] = 0
    picture = PIL.Image.fromarray(np.concatenate([colors, alpha], axis=-1))
    expected = colors.copy()
    expected[:10] = 255
    np.testing.assert_array_equal(read_back(picture), expected)


def test_a_PIL_image_with_a_palette_has_its_colors():
    picture = PIL.Image.new("P", (60, 40), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    np.testing.assert_array_equal(read_back(picture), np.full((40, 60, 3), (200, 100, 50)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I", "I;16", "F"])
def test_gray_PIL_images_are_refused(mode, adata):
    with pytest.raises(ValueError, match=f"image= is a PIL image of mode {mode!r}, which is gray"):
        from_anndata(adata, PIL.Image.new(mode, (60, 40)), um_per_px=1.0)


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (7, "int"),
        ([[0, 0, 0]], "list"),
        (b"slide.tif", "bytes"),
        (torch.zeros((40, 60, 3), dtype=torch.uint8), "torch.Tensor"),
        (xarray.Dataset(), "xarray.Dataset"),
    ],
    ids=["int", "list", "bytes", "torch", "Dataset"],
)
def test_other_types_are_refused_with_the_list(thing, name, adata, space_ranger):
    message = (
        r"image= accepts the path of a file, a NumPy, Zarr or Dask array, a PIL image, or an xarray"
        rf" .*, not {name}$"
    )
    with pytest.raises(TypeError, match=message):
        from_anndata(adata, thing, um_per_px=1.0)
    with pytest.raises(TypeError, match=message):
        read_visium(space_ranger, image=thing)
    with pytest.raises(TypeError, match=message.replace("image=", "array=")):
        ImagePyramid.from_array(thing, 1.0)


@pytest.mark.parametrize("shape", [(3, 500, 3), (4, 500, 3), (3, 500, 4)])
@pytest.mark.parametrize("form", [np.asarray, dask.array.from_array, xarray.DataArray])
def test_axes_that_can_be_read_in_two_ways_are_asked_about(shape, form, adata):
    pixels = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=r"can be \(y, x, c\) or \(c, y, x\); pass xarray"):
        from_anndata(adata, form(pixels), um_per_px=1.0)
    named = xarray.DataArray(pixels, dims=("y", "x", "c"))
    assert ImagePyramid.from_array(named, 1.0).levels[0].shape == shape[:2]


def test_axes_and_channels_with_other_names_are_asked_about(colors):
    with pytest.raises(ValueError, match=r"image= has the axes \('y', 'x', 'z'\); name them y, x"):
        from_anndata_of(xarray.DataArray(colors, dims=("y", "x", "z")))
    stains = {"c": ["DAPI", "CD3", "CK"]}
    with pytest.raises(ValueError, match="the image has the channels DAPI, CD3, CK, not red"):
        from_anndata_of(xarray.DataArray(colors, dims=("y", "x", "c"), coords=stains))


def from_anndata_of(image):
    import anndata

    adata = anndata.AnnData(np.ones((1, 1), np.float32), obsm={"spatial": np.array([[9.0, 9.0]])})
    return from_anndata(adata, image, um_per_px=1.0)


def test_space_ranger_takes_pixels_and_xenium_a_path(space_ranger, image, tmp_path):
    sdata = read_visium(space_ranger, image=PIL.Image.fromarray(image), name="a")
    pixels = sdata["a_full_image"].transpose("y", "x", "c").to_numpy()
    np.testing.assert_array_equal(pixels, image)
    (tmp_path / "experiment.xenium").write_text("{}")
    files = ("cell_feature_matrix.h5", "cells.parquet", "cells.zarr.zip", "cell_boundaries.parquet")
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(TypeError, match=r"image= of read_xenium is the path .*, not ndarray"):
        read_xenium(tmp_path, image=image)


def test_a_url_is_no_path(adata, space_ranger):
    url = "https://example.org/slide.tif"
    with pytest.raises(ValueError, match=f"{url} is a URL"):
        from_anndata(adata, url, um_per_px=1.0)
    with pytest.raises(ValueError, match=f"{url} is a URL"):
        read_visium(space_ranger, image=url)
