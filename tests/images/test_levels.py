import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from tests.slides import make_slide, write_pyramid

import stp
from stp.images.levels import Level, open_array, open_element

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
ALPHA = np.full((40, 60, 1), 7, np.uint8)


def whole(level):
    return level.read(0, level.shape[0], 0, level.shape[1])


def zarr_of(array):
    group = zarr.create_array({}, shape=array.shape, dtype=array.dtype, chunks=(16, 16, 16))
    group[:] = array
    return group


@pytest.mark.parametrize("channels_first", [False, True], ids=["yxc", "cyx"])
@pytest.mark.parametrize("alpha", [False, True], ids=["rgb", "rgba"])
@pytest.mark.parametrize(
    "backing",
    [np.asarray, lambda x: dask.array.from_array(x, chunks=13), zarr_of],
    ids=["numpy", "dask", "zarr"],
)
def test_arrays_of_any_order_and_backing(channels_first, alpha, backing):
    array = np.concatenate([RGB, ALPHA], axis=-1) if alpha else RGB
    level = open_array(
        backing(np.ascontiguousarray(np.moveaxis(array, -1, 0)) if channels_first else array)
    )
    assert level.channels_first is channels_first
    assert level.shape == (40, 60)
    window = level.read(3, 20, 50, 60)
    assert type(window) is np.ndarray
    expected = np.round(255 - (255.0 - RGB) * 7 / 255) if alpha else RGB
    np.testing.assert_array_equal(window, expected[3:20, 50:60])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RGB.astype(np.uint16), "8 bits per channel, got uint16; convert the image to uint8 first"),
        (RGB / 255, "8 bits per channel, got float64"),
        (RGB[..., 0], r"RGB image, got an array of shape \(40, 60\)"),
        (RGB[..., :1], r"RGB image, got an array of shape \(40, 60, 1\)"),
        (np.zeros((7, 40, 60), np.uint8), r"RGB image, got an array of shape \(7, 40, 60\)"),
        (RGB[None], r"RGB image, got an array of shape \(1, 40, 60, 3\)"),
        (RGB[:0], r"the image has no pixels: its shape is \(0, 60, 3\)"),
        (RGB[:, :3, 0], r"RGB image, got an array of shape \(40, 3\)"),
    ],
    ids=[
        "uint16",
        "float",
        "gray",
        "one channel",
        "seven channels",
        "stack",
        "zero size",
        "gray of width 3",
    ],
)
def test_what_is_no_8_bit_rgb_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        open_array(array)


def test_ambiguous_order_is_that_of_pictures():
    assert open_array(np.zeros((3, 5, 4), np.uint8)).channels_first is False
    assert Level(np.zeros((3, 5, 4), np.uint8), channels_first=True).shape == (5, 4)


def test_a_file_in_a_spatialdata_is_read_without_dask_and_a_changed_view_of_it_is_not(tmp_path):
    adata, image = make_slide(0, 4, 4)
    write_pyramid(tmp_path / "a.tif", image)
    sdata = stp.io.from_anndata(adata, tmp_path / "a.tif", um_per_px=1.0)
    element = sdata.images["slide_full_image"]
    finest = element["scale0"]["image"] if hasattr(element, "children") else element
    (level, *_) = open_element(element)
    assert not isinstance(level.array, dask.array.Array)
    expected = tifffile.imread(tmp_path / "a.tif")
    height, width = level.shape
    np.testing.assert_array_equal(level.read(0, height, 0, width), expected)
    for view in (finest[:, ::-1], finest[:, 5:], finest + np.uint8(1), finest[:, :, ::-1]):
        (other,) = open_element(view)
        window = other.read(0, 50, 0, 60)
        expected = np.moveaxis(view.data.compute(), 0, -1)[:50, :60]
        np.testing.assert_array_equal(window, expected)
