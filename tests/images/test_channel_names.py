"""Channels of SpatialData images are read by their names."""

import numpy as np
import PIL.Image
import pytest
import spatialdata
import tifffile
import xarray
from spatialdata.models import Image2DModel

import stp
from stp.images.levels import open_array
from stp.images.pyramid import ImagePyramid
from stp.images.slides import SlideQuery, find_slides

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
EXTRA = np.full((64, 96), 7, np.uint8)


def read(sdata, image_key="he"):
    pyramid = ImagePyramid.from_spatialdata(sdata, image_key, um_per_px=1.0)
    return pyramid.read([[48, 32]], size=40, um_per_px=1.0)[0]


def sdata_of(planes, names, scale_factors=None):
    """Return a SpatialData with one image; `planes` are its channels."""
    element = Image2DModel.parse(
        np.stack(planes), dims=("c", "y", "x"), c_coords=names, scale_factors=scale_factors
    )
    return spatialdata.SpatialData(images={"he": element})


RED, GREEN, BLUE = np.moveaxis(PIXELS, -1, 0)
EXPECTED = PIXELS[12:52, 28:68]


@pytest.mark.parametrize("scale_factors", [None, [2]], ids=["single", "multiscale"])
@pytest.mark.parametrize(
    ("planes", "names"),
    [
        ([RED, GREEN, BLUE], ["r", "g", "b"]),
        ([BLUE, GREEN, RED], ["b", "g", "r"]),
        ([GREEN, RED, BLUE], ["Green", "Red", "Blue"]),
        ([EXTRA, BLUE, GREEN, RED], ["DAPI", "blue", "green", "red"]),
        ([RED, GREEN, BLUE, EXTRA], ["r", "g", "b", "DAPI"]),
        ([RED, GREEN, BLUE], None),
        ([RED, GREEN, BLUE], ["0", "1", "2"]),
        ([RED, GREEN, BLUE], ["c0", "c1", "c2"]),
        ([RED, GREEN, BLUE], ["Channel 1", "Channel 2", "Channel 3"]),
    ],
    ids=str,
)
def test_channels_are_red_green_and_blue_by_name(planes, names, scale_factors):
    np.testing.assert_array_equal(read(sdata_of(planes, names, scale_factors)), EXPECTED)


def test_channels_are_read_by_name_from_disk(tmp_path):
    sdata_of([BLUE, GREEN, RED], ["b", "g", "r"]).write(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read(spatialdata.read_zarr(tmp_path / "a.zarr")), EXPECTED)


@pytest.mark.parametrize("names", [["r", "g", "b", "a"], None, ["alpha", "red", "green", "blue"]])
def test_the_channel_alpha_lays_colors_on_white(names):
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    planes = [RED, GREEN, BLUE]
    planes.insert(0 if names and names[0] == "alpha" else 3, alpha)
    patch = read(sdata_of(planes, names))
    assert (patch[:, :20] == 255).all()
    np.testing.assert_array_equal(patch[:, 20:], EXPECTED[:, 20:])


@pytest.mark.parametrize(
    "names",
    [
        ["DAPI", "CD3", "CD8"],
        ["DAPI", "r", "g"],
        ["r", "g", "g2"],
        ["2", "1", "0"],
        ["405", "488", "561"],
    ],
    ids=str,
)
def test_channels_of_other_names_are_refused(names):
    message = f"image 'he' has the channels {', '.join(names)}, not red, green and blue"
    with pytest.raises(ValueError, match=message):
        read(sdata_of([RED, GREEN, BLUE], names))


@pytest.mark.parametrize("image_key", [None, "other"])
def test_an_image_of_fluorescence_is_refused_for_a_table(sdata, image_key):
    full = sdata.images.pop("slide_full_image")
    sdata.images["other"] = full.assign_coords(c=["DAPI", "CD3", "CD8"])
    message = "no RGB image" if image_key is None else "image 'other' has the channels DAPI, CD3"
    with pytest.raises(ValueError, match=message):
        find_slides(sdata, sdata["table"], SlideQuery(image_key=image_key))


def test_an_image_in_another_order_is_found_and_read_by_name(sdata):
    (slide,) = find_slides(sdata, sdata["table"])
    expected = slide.pyramid.read(slide.centers[:9], size=16, um_per_px=1.0)
    full = sdata.images.pop("slide_full_image")
    sdata.images["slide_full_image"] = Image2DModel.parse(
        full.data[::-1],
        dims=("c", "y", "x"),
        c_coords=["b", "g", "r"],
        transformations=spatialdata.transformations.get_transformation(full, get_all=True),
    )
    (turned,) = find_slides(sdata, sdata["table"])
    patches = turned.pyramid.read(turned.centers[:9], size=16, um_per_px=1.0)
    np.testing.assert_array_equal(patches, expected)


def test_an_array_with_named_channels_is_read_by_name():
    array = xarray.DataArray(
        np.stack([BLUE, RED, GREEN], axis=-1),
        dims=("y", "x", "c"),
        coords={"c": ["b", "r", "g"]},
    )
    np.testing.assert_array_equal(open_array(array).read(12, 52, 28, 68), EXPECTED)
    with pytest.raises(ValueError, match="the image has the channels DAPI, r, g"):
        open_array(array.assign_coords(c=["DAPI", "r", "g"]))


@pytest.mark.parametrize("kind", ["png", "tif", "numpy"])
def test_readers_and_stores_lay_transparent_pixels_on_white(kind, adata, image, tmp_path):
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    rgba[:, : image.shape[1] // 2] = 0
    source = rgba
    if kind == "png":
        source = tmp_path / "a.png"
        PIL.Image.fromarray(rgba).save(source)
    if kind == "tif":
        source = tmp_path / "a.tif"
        tifffile.imwrite(source, rgba, photometric="rgb", tile=(64, 64))
    sdata = stp.io.from_anndata(adata, source, um_per_px=1.0, name="slide")
    element = sdata.images["slide_full_image"]
    assert list(element.coords["c"].to_numpy()) == ["r", "g", "b"]
    on_white = image.copy()
    on_white[:, : image.shape[1] // 2] = 255
    np.testing.assert_array_equal(np.moveaxis(element.data.compute(), 0, -1), on_white)
    sdata.write(tmp_path / "a.zarr")
    again = spatialdata.read_zarr(tmp_path / "a.zarr")
    (slide,) = find_slides(again, again["table"])
    np.testing.assert_array_equal(
        slide.pyramid.read([[60, 60]], size=32, um_per_px=1.0)[0], on_white[44:76, 44:76]
    )


def test_a_slide_without_counts_lies_on_white(tmp_path):
    rgba = np.full((200, 300, 4), (180, 80, 150, 255), np.uint8)
    rgba[:, 150:] = 0
    PIL.Image.fromarray(rgba).save(tmp_path / "a.png")
    sdata = stp.io.read_wsi(tmp_path / "a.png", um_per_px=1.0, tile_um=50)
    assert sorted(set(sdata["wsi"].geometry.x)) == [25, 75, 125]
    pyramid = ImagePyramid.from_spatialdata(sdata, "wsi_full_image")
    assert (pyramid.read([[250, 100]], size=32, um_per_px=1.0) == 255).all()
