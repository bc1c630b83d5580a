"""Patches of the images of a SpatialData: the same as those of their arrays."""

import dask.array
import numpy as np
import PIL.Image
import pytest
import spatialdata
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

from stp.patches import ImagePyramid, element_levels

RNG = np.random.default_rng(0)
# Smooth, so that a shift of a pixel shows; halved twice without a rest, which spatialdata would drop on the left.
IMAGE = np.asarray(PIL.Image.fromarray(RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8)).resize((400, 300), 3))
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
        Affine([[0.5, 0, 30], [0, 0.5, -70], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")),
        lambda px: px * 0.5 + [30, -70],
    ),
    "mirrored": (
        Affine([[-0.5, 0, 300], [0, 0.5, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")),
        lambda px: px * [-0.5, 0.5] + [300, 0],
    ),
    "turned": (
        Affine([[0, -0.5, 9], [0.5, 0, 4], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")),
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


@pytest.mark.parametrize("system", ["global", "um"])
def test_centers_are_in_the_coordinate_system(system):
    sdata = spatialdata.SpatialData(images={"he": element({"global": Identity(), "um": SCALE})})
    pyramid = ImagePyramid.from_spatialdata(sdata, "he", coordinate_system=system)
    assert (pyramid.um_per_px, pyramid.scale_source) == (0.5, "the coordinate system um")
    centers = CENTERS if system == "global" else CENTERS / 2
    expected = ARRAY.read(CENTERS, size=32, um_per_px=0.5)
    np.testing.assert_array_equal(pyramid.read(centers, size=32, um_per_px=0.5), expected)
    assert ImagePyramid.from_spatialdata(sdata, "he").affine[0, 0] == 2  # um is what is meant where nothing is said


def test_a_spatialdata_image_that_cannot_be_read_as_asked():
    images = {"he": element({"a": Identity(), "b": Identity()}), "um": element({"um": SCALE})}
    read = ImagePyramid.from_spatialdata
    sdata = spatialdata.SpatialData(images=images)
    with pytest.raises(KeyError, match=r"no image 'x'; pass image_key= one of \['he', 'um'\]"):
        read(sdata, "x")
    with pytest.raises(KeyError, match=r"'he' is not in 'c'; pass coordinate_system= one of \['a', 'b'\]"):
        read(sdata, "he", coordinate_system="c", um_per_px=0.5)
    with pytest.raises(ValueError, match=r"several coordinate systems; .*\['a', 'b'\]"):
        read(sdata, "he", um_per_px=0.5)
    with pytest.raises(ValueError, match="no physical scale"):
        read(sdata, "he", coordinate_system="a")
    with pytest.raises(ValueError, match=r"um_per_px gives 0\.25 .* the coordinate system um gives 0\.5"):
        read(sdata, "um", um_per_px=0.25)
    assert read(sdata, "he", coordinate_system="a", um_per_px=0.25).um_per_px == 0.25


def test_element_levels_are_lazy():
    image = Image2DModel.parse(dask.array.from_array(IMAGE, chunks=100), dims=("y", "x", "c"), scale_factors=[2])
    levels = element_levels(image)
    assert [level.shape for level in levels] == [(300, 400), (150, 200)]
    assert all(isinstance(level.array, dask.array.Array) for level in levels)
    np.testing.assert_array_equal(levels[0].read(0, 300, 0, 400), IMAGE)
