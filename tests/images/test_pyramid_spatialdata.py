"""Patches of the images of a SpatialData: the same as those of their arrays."""

from multiprocessing.reduction import ForkingPickler

import dask.array
import numpy as np
import PIL.Image
import pytest
import spatialdata
import zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

from stp.images.levels import open_element
from stp.images.pyramid import ImagePyramid

RNG = np.random.default_rng(0)
# Smooth, so that a shift of a pixel shows. It can be halved twice: of odd sides, spatialdata drops
# the first pixel.
IMAGE = np.asarray(
    PIL.Image.fromarray(RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8)).resize((400, 300), 3)
)
CENTERS = RNG.uniform([40, 40], [360, 260], (25, 2))
ARRAY = ImagePyramid.from_array(IMAGE, 0.5)


def element(transformations, scale_factors=None):
    return Image2DModel.parse(
        IMAGE,
        dims=("y", "x", "c"),
        c_coords=list("rgb"),
        transformations=transformations,
        scale_factors=scale_factors,
    )


SCALE = Scale([0.5, 0.5], axes=("x", "y"))
SHIFT = Translation([30, -70], axes=("x", "y"))
MAPS = {
    "scale": (SCALE, lambda px: px * 0.5),
    "scale and translation": (Sequence([SCALE, SHIFT]), lambda px: px * 0.5 + [30, -70]),
    "affine": (
        Affine(
            [[0.5, 0, 30], [0, 0.5, -70], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")
        ),
        lambda px: px * 0.5 + [30, -70],
    ),
    "mirrored": (
        Affine(
            [[-0.5, 0, 300], [0, 0.5, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")
        ),
        lambda px: px * [-0.5, 0.5] + [300, 0],
    ),
    "turned": (
        Affine(
            [[0, -0.5, 9], [0.5, 0, 4], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")
        ),
        lambda px: px[:, ::-1] * [-0.5, 0.5] + [9, 4],
    ),
}


@pytest.mark.parametrize("scale_factors", [None, [2, 2]], ids=["single", "multiscale"])
@pytest.mark.parametrize("kind", MAPS)
def test_a_spatialdata_image_gives_the_patches_of_the_array(kind, scale_factors):
    transformation, to_um = MAPS[kind]
    sdata = spatialdata.SpatialData(images={"he": element({"um": transformation}, scale_factors)})
    pyramid = ImagePyramid.from_spatialdata(sdata, "he")
    assert pyramid.um_per_px == pytest.approx(0.5)
    assert len(pyramid.levels) == (1 if scale_factors is None else 3)
    np.testing.assert_allclose(pyramid.to_pixels(to_um(CENTERS)), CENTERS)
    expected = ARRAY.read(CENTERS, size=32, um_per_px=0.5)
    np.testing.assert_array_equal(pyramid.read(to_um(CENTERS), size=32, um_per_px=0.5), expected)
    coarse = pyramid.read(to_um(CENTERS), size=16, um_per_px=1.5).astype(int)
    assert np.abs(coarse - ARRAY.read(CENTERS, size=16, um_per_px=1.5)).mean() < 1


@pytest.mark.parametrize("shape", [(300, 400), (299, 397), (303, 399), (297, 402)], ids=str)
def test_levels_of_any_size_show_the_same_place(shape):
    # spatialdata drops the first pixels of a side that its factors do not divide: up to 3 in these.
    image = np.asarray(PIL.Image.fromarray(IMAGE).resize(shape[::-1]))
    element = Image2DModel.parse(
        image, dims=("y", "x", "c"), c_coords=list("rgb"), scale_factors=[2, 2]
    )
    pyramid = ImagePyramid.from_spatialdata(
        spatialdata.SpatialData(images={"he": element}), "he", um_per_px=0.5
    )
    origins = [level.origin for level in pyramid.levels]
    assert origins == [(0, 0), (shape[1] % 2, shape[0] % 2), (shape[1] % 4, shape[0] % 4)]
    centers = CENTERS.clip(60, 240)
    for um_per_px in (1.2, 2.6):
        of_levels = pyramid.read(centers, size=16, um_per_px=um_per_px).astype(int)
        of_array = ImagePyramid.from_array(image, 0.5).read(centers, size=16, um_per_px=um_per_px)
        assert (
            np.abs(of_levels - of_array).mean() < 1.5
        )  # spatialdata cuts its means off: 0.4 for each level


def test_levels_of_a_real_slide_show_the_same_place(real):
    path = real("wsi", "TCGA-CR-7395-01A-01-TS1.svs")
    slide = ImagePyramid.from_path(path, um_per_px=0.25)
    assert [level.origin for level in slide.levels] == [
        (0, 0),
        (0, 0),
    ]  # its maker dropped the last pixels
    image = slide.levels[0].read(0, slide.levels[0].shape[0], 0, slide.levels[0].shape[1])
    assert (image.shape[0] % 2, image.shape[1] % 2) == (1, 1)
    element = Image2DModel.parse(
        image, dims=("y", "x", "c"), c_coords=list("rgb"), scale_factors=[2, 2]
    )
    levels = ImagePyramid.from_spatialdata(
        spatialdata.SpatialData(images={"he": element}), "he", um_per_px=0.25
    )
    centers = np.random.default_rng(0).uniform([700, 700], [3700, 2800], (40, 2))
    for um_per_px, compressed in ((0.6, 5), (0.75, 4), (1.5, 2.5)):
        expected = (
            ImagePyramid.from_array(image, 0.25)
            .read(centers, size=64, um_per_px=um_per_px)
            .astype(int)
        )
        for pyramid, tolerance in ((levels, 1.6), (slide, compressed)):
            patches = pyramid.read(centers, size=64, um_per_px=um_per_px)
            assert np.abs(patches - expected).mean() < tolerance
    at_level = slide.read(centers, size=64, um_per_px=0.5)
    corners = np.floor(centers / 2 - 32 + 0.5).astype(int)
    for patch, (x, y) in zip(at_level, corners, strict=True):
        np.testing.assert_array_equal(patch, slide.levels[1].read(y, y + 64, x, x + 64))


@pytest.mark.parametrize(
    "matrix", [[[0, 0, 5], [0, 0.5, 0]], [[1, 1, 0], [1, 1, 0]], [[np.nan, 0, 0], [0, 1, 0]]]
)
def test_a_transformation_without_inverse_is_refused(matrix):
    transformation = Affine([*matrix, [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    sdata = spatialdata.SpatialData(images={"he": element({"um": transformation})})
    with pytest.raises(
        ValueError, match="the transformation of image 'he' to 'um' has no inverse; set it anew"
    ):
        ImagePyramid.from_spatialdata(sdata, "he", um_per_px=0.5)


def test_pixels_that_are_not_square_are_refused():
    sdata = spatialdata.SpatialData(
        images={"he": element({"um": Scale([0.5, 0.25], axes=("x", "y"))})}
    )
    with pytest.raises(
        ValueError,
        match="makes pixels 2 times longer than wide.*resample the image to square pixels",
    ):
        ImagePyramid.from_spatialdata(sdata, "he")


@pytest.mark.parametrize("system", ["global", "um"])
def test_centers_are_in_the_coordinate_system(system):
    sdata = spatialdata.SpatialData(images={"he": element({"global": Identity(), "um": SCALE})})
    pyramid = ImagePyramid.from_spatialdata(sdata, "he", coordinate_system=system)
    assert (pyramid.um_per_px, pyramid.scale_source) == (0.5, "the coordinate system um")
    centers = CENTERS if system == "global" else CENTERS / 2
    expected = ARRAY.read(CENTERS, size=32, um_per_px=0.5)
    np.testing.assert_array_equal(pyramid.read(centers, size=32, um_per_px=0.5), expected)
    assert ImagePyramid.from_spatialdata(sdata, "he").affine[0, 0] == 2  # "um" is the default


def test_a_spatialdata_image_that_cannot_be_read_as_asked():
    images = {"he": element({"a": Identity(), "b": Identity()}), "um": element({"um": SCALE})}
    read = ImagePyramid.from_spatialdata
    sdata = spatialdata.SpatialData(images=images)
    with pytest.raises(KeyError, match=r"no image 'x'; pass image_key= one of \['he', 'um'\]"):
        read(sdata, "x")
    with pytest.raises(
        KeyError, match=r"'he' is not in 'c'; pass coordinate_system= one of \['a', 'b'\]"
    ):
        read(sdata, "he", coordinate_system="c", um_per_px=0.5)
    with pytest.raises(ValueError, match=r"several coordinate systems; .*\['a', 'b'\]"):
        read(sdata, "he", um_per_px=0.5)
    with pytest.raises(ValueError, match="no physical scale"):
        read(sdata, "he", coordinate_system="a")
    with pytest.warns(UserWarning, match=r"=0\.25 is used .* the coordinate system um gives 0\.5"):
        assert read(sdata, "um", um_per_px=0.25).um_per_px == 0.25
    assert read(sdata, "he", coordinate_system="a", um_per_px=0.25).um_per_px == 0.25


def test_levels_of_an_element_are_lazy():
    image = Image2DModel.parse(
        dask.array.from_array(IMAGE, chunks=100), dims=("y", "x", "c"), scale_factors=[2]
    )
    image["scale1"] = image["scale1"].chunk({"y": 100, "x": 100})
    levels = open_element(image)
    assert [level.shape for level in levels] == [(300, 400), (150, 200)]
    assert all(isinstance(level.array, dask.array.Array) for level in levels)
    np.testing.assert_array_equal(levels[0].read(0, 300, 0, 400), IMAGE)


@pytest.mark.parametrize("chunk", [32, 100, 1000])
def test_a_store_is_read_as_zarr_and_pickles_as_its_path(chunk, tmp_path):
    image = Image2DModel.parse(
        IMAGE, dims=("y", "x", "c"), scale_factors=[2], chunks=(3, chunk, chunk)
    )
    spatialdata.SpatialData(images={"he": image}).write(tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    pyramid = ImagePyramid.from_spatialdata(sdata, "he", um_per_px=0.5)
    assert all(isinstance(level.array, zarr.Array) for level in pyramid.levels)
    pickled = ForkingPickler.dumps(pyramid)
    assert len(pickled) < 6000
    expected = ARRAY.read(CENTERS, size=32, um_per_px=0.5)
    np.testing.assert_array_equal(
        ForkingPickler.loads(pickled).read(CENTERS, size=32, um_per_px=0.5), expected
    )
    # What is computed from a store is not what stands in it.
    inverted = sdata["he"]["scale0"]["image"].copy(data=255 - sdata["he"]["scale0"]["image"].data)
    sdata.images["inverted"] = inverted
    read = ImagePyramid.from_spatialdata(sdata, "inverted", um_per_px=0.5).read(
        CENTERS, size=32, um_per_px=0.5
    )
    np.testing.assert_array_equal(read, 255 - expected)
