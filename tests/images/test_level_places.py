"""Levels that were padded, cropped or resized show the same place as the finest."""

import warnings

import numpy as np
import PIL.Image
import pytest
import spatialdata
import tifffile
from spatialdata.models import Image2DModel

import stp
from stp.images.level_places import factor_between, place_levels
from stp.images.levels import open_array
from stp.images.pyramid import ImagePyramid

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 910, 690
# Details of about 24 pixels, so that a shift of a few pixels shows.
FULL = np.asarray(
    PIL.Image.fromarray(RNG.integers(60, 240, (38, 29, 3)).astype(np.uint8)).resize(
        (WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC
    )
)
CENTERS = np.array([[80.0, 80.0], [600.0, 100.0], [345.0, 455.0], [90.0, 800.0], [590.0, 800.0]])
TRUTH = ImagePyramid.from_array(FULL, 0.25)


def reduced(factor, filter_=PIL.Image.Resampling.BOX):
    """Return the finest level reduced by a whole factor, without the last pixels."""
    height, width = HEIGHT // factor, WIDTH // factor
    box = (0, 0, width * factor, height * factor)
    picture = PIL.Image.fromarray(FULL).resize((width, height), filter_, box=box)
    return np.asarray(picture)


def resized(height, width):
    picture = PIL.Image.fromarray(FULL)
    return np.asarray(picture.resize((width, height), PIL.Image.Resampling.BOX))


def padded(pixels, tile=128, color=255):
    height, width = (-(-n // tile) * tile for n in pixels.shape[:2])
    result = np.full((height, width, 3), color, np.uint8)
    result[: pixels.shape[0], : pixels.shape[1]] = pixels
    return result


def cropped(pixels, tile=128):
    height, width = (n // tile * tile for n in pixels.shape[:2])
    return pixels[:height, :width]


def pyramid_of(*arrays):
    return ImagePyramid(place_levels(tuple(map(open_array, arrays))), 0.25)


def difference(pyramid, factor):
    """Return how much patches from a level differ from those of the finest, of 255."""
    um_per_px = 0.25 * factor * 1.1  # no slices, whose corners are rounded
    in_system = (CENTERS - pyramid.affine[:2, 2]) / np.diag(pyramid.affine)[:2]
    patches = pyramid.read(in_system, size=16, um_per_px=um_per_px).astype(int)
    expected = TRUTH.read(CENTERS, size=16, um_per_px=um_per_px)
    return np.abs(patches - expected).mean(axis=(1, 2, 3))[is_shown(pyramid)].max()


def is_shown(pyramid):
    """Return which patches lie completely in the coarsest level."""
    level = pyramid.levels[-1]
    end = np.array(level.shape[::-1]) * level.factor
    return (CENTERS + 70 < end).all(axis=1)


@pytest.mark.parametrize("color", [255, 0], ids=["white", "black"])
@pytest.mark.parametrize(
    "levels",
    [
        [padded(reduced(2))],
        [padded(reduced(2)), padded(reduced(4))],
        [padded(reduced(2), 256), padded(reduced(4), 256)],
        [padded(reduced(2))[:, : WIDTH // 2]],
        [padded(reduced(2))[: HEIGHT // 2]],
        [padded(reduced(3))],
        [padded(reduced(4), 100)],
    ],
    ids=["2", "2 and 4", "large tiles", "height", "width", "3", "4 alone"],
)
def test_padded_levels(levels, color):
    levels = [np.where(level == 255, color, level).astype(np.uint8) for level in levels]
    pyramid = pyramid_of(FULL, *levels)
    assert len(pyramid.levels) == len(levels) + 1
    for level in pyramid.levels[1:]:
        x, y = level.factor
        assert x == y and x in (2, 3, 4)
        assert difference(pyramid, x) < 1.5


@pytest.mark.parametrize("factor", [2, 4])
def test_cropped_levels(factor):
    level = cropped(reduced(factor), 64)
    pyramid = pyramid_of(FULL, level)
    assert pyramid.levels[1].factor == (factor, factor)
    assert is_shown(pyramid).sum() >= 2
    assert difference(pyramid, factor) < 1.5


@pytest.mark.parametrize(
    "shape", [(607, 460), (364, 277), (350, 276), (260, 197), (910, 460)], ids=str
)
def test_resized_levels_have_a_factor_along_each_side(shape):
    pyramid = pyramid_of(FULL, resized(*shape))
    (level,) = pyramid.levels[1:]
    assert level.factor == pytest.approx((WIDTH / shape[1], HEIGHT / shape[0]))
    assert difference(pyramid, max(level.factor)) < 2.5


def test_factors_that_differ_are_used_along_their_sides():
    # A pixel is 2.6 pixels high and 2.5 wide.
    pyramid = pyramid_of(FULL, resized(350, 276))
    square = pyramid_of(FULL, resized(364, 276))
    patches = pyramid.read(CENTERS, size=24, um_per_px=1.3).astype(int)
    assert np.abs(patches - square.read(CENTERS, size=24, um_per_px=1.3)).mean() < 2.5


@pytest.mark.parametrize("quality", [30, 90])
def test_levels_that_were_compressed_are_placed(quality, tmp_path):
    path = tmp_path / "slide.ome.tif"
    scale = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}
    how = {
        "photometric": "ycbcr",
        "tile": (128, 128),
        "compression": "jpeg",
        "compressionargs": {"level": quality},
    }
    ycbcr = [
        np.asarray(PIL.Image.fromarray(pixels).convert("YCbCr"))
        for pixels in (FULL, padded(reduced(2)), padded(reduced(4)))
    ]
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(ycbcr[0], subifds=2, metadata={"axes": "YXS", **scale}, **how)
        for level in ycbcr[1:]:
            tiff.write(level, subfiletype=1, metadata=None, **how)
    pyramid = ImagePyramid.from_path(path)
    assert [level.factor for level in pyramid.levels] == [(1, 1), (2, 2), (4, 4)]


def test_levels_without_averages_are_placed():
    nearest = padded(reduced(2, PIL.Image.Resampling.NEAREST))
    assert pyramid_of(FULL, nearest).levels[1].factor == (2, 2)


def test_a_level_that_shows_something_else_is_left_out():
    other = padded(reduced(2))[::-1, ::-1]
    with pytest.warns(UserWarning, match=r"the image level of 384 x 512 pixels is not used"):
        pyramid = pyramid_of(FULL, other, padded(reduced(4)))
    assert [level.factor for level in pyramid.levels] == [(1, 1), (4, 4)]
    assert difference(pyramid, 4) < 1.5


def test_a_level_that_shows_nothing_is_left_out():
    with pytest.warns(UserWarning, match=r"the image level of 384 x 512 pixels is not used"):
        pyramid = pyramid_of(FULL, np.full((512, 384, 3), 255, np.uint8))
    assert len(pyramid.levels) == 1


class Counted:
    """An array that counts the pixels read from it."""

    def __init__(self, array):
        self.array = array
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype
        self.n_pixels = 0

    def __getitem__(self, key):
        window = self.array[key]
        self.n_pixels += window.shape[0] * window.shape[1]
        return window


def test_levels_whose_sizes_say_all_are_not_read():
    arrays = [Counted(array) for array in (FULL[:900, :680], reduced(2)[:450, :340])]
    pyramid_of(*arrays)
    assert [array.n_pixels for array in arrays] == [0, 0]


def test_few_pixels_are_read_to_place_a_level():
    large = np.tile(FULL, (4, 4, 1))
    half = np.tile(resized(HEIGHT // 2, WIDTH // 2), (4, 4, 1))
    arrays = [Counted(large), Counted(padded(half, 512))]
    pyramid = pyramid_of(*arrays)
    assert pyramid.levels[1].factor == (2, 2)
    assert arrays[0].n_pixels < 0.3 * large.shape[0] * large.shape[1]


@pytest.mark.parametrize(
    ("full", "reduced_side", "factor"),
    [(300, 150, 2), (301, 150, 2), (301, 151, 2), (1000, 62, 16), (1000, 63, 16), (300, 200, 1.5)],
)
def test_the_factor_of_one_side(full, reduced_side, factor):
    assert factor_between(full, reduced_side) == factor


def test_images_of_spatialdata_are_placed_too(tmp_path):
    # The levels of spatialdata are its own; these were written by another program.
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as tiff:
        how = {"photometric": "rgb", "tile": (128, 128)}
        scale = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tiff.write(FULL, subifds=1, metadata={"axes": "YXS", **scale}, **how)
        tiff.write(padded(reduced(2)), subfiletype=1, metadata=None, **how)
    sdata = stp.io.read_wsi(tmp_path / "slide.ome.tif")
    level = sdata.images["wsi_full_image"]["scale1"]["image"]
    np.testing.assert_allclose(level.coords["x"][:3], [1, 3, 5])
    np.testing.assert_allclose(level.coords["y"][-2:], [1021, 1023])
    assert difference(ImagePyramid.from_spatialdata(sdata, "wsi_full_image"), 2) < 1.5
    sdata.write(tmp_path / "slide.zarr")
    again = spatialdata.read_zarr(tmp_path / "slide.zarr")
    pyramid = ImagePyramid.from_spatialdata(again, "wsi_full_image")
    assert [level.factor for level in pyramid.levels] == [(1, 1), (2, 2)]
    assert difference(pyramid, 2) < 1.5


@pytest.mark.parametrize("scale_factors", [[2, 2], [3], [5]], ids=str)
def test_levels_of_spatialdata_give_no_warning(scale_factors):
    element = Image2DModel.parse(
        FULL, dims=("y", "x", "c"), c_coords=list("rgb"), scale_factors=scale_factors
    )
    sdata = spatialdata.SpatialData(images={"he": element})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pyramid = ImagePyramid.from_spatialdata(sdata, "he", um_per_px=0.25)
    assert len(pyramid.levels) == len(scale_factors) + 1
    assert difference(pyramid, max(pyramid.levels[-1].factor)) < 2
