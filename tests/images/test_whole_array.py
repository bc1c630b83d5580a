import copy

import dask.array
import numpy as np
import pytest
from spatialdata.models import Image2DModel

from stp.images.levels import open_element
from stp.images.pyramid import ImagePyramid
from stp.images.whole_array import WholeArray

READS = []


def decode(shape):
    READS.append(shape)
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


@pytest.fixture
def image():
    """An image that is decoded as a whole, as dask-image opens a TIFF of one page."""
    READS.clear()
    shape = (3, 60, 80)
    chunk = dask.delayed(decode)(shape)
    array = dask.array.from_delayed(chunk, shape, np.uint8)
    return Image2DModel.parse(array, dims=("c", "y", "x"), c_coords=["r", "g", "b"])


def test_an_image_of_one_chunk_is_decoded_once(image):
    pyramid = ImagePyramid(open_element(image), 1.0)
    expected = np.moveaxis(image.data.compute(), 0, -1)
    READS.clear()
    for _ in range(3):
        (patch,) = pyramid.read([[30, 20]], size=10, um_per_px=1.0)
        np.testing.assert_array_equal(patch, expected[15:25, 25:35])
    assert len(READS) == 1


def test_an_image_of_several_chunks_is_read_as_before(image):
    chunks = image.copy(data=image.data.rechunk((3, 30, 80)))
    (level,) = open_element(chunks)
    assert not isinstance(level.array, WholeArray)


def test_a_copy_for_another_process_has_no_pixels_yet(image):
    (level,) = open_element(image)
    before = level.read(0, 60, 0, 80)
    assert len(READS) == 1
    other = copy.copy(level.array)  # made as pickle makes it
    np.testing.assert_array_equal(np.moveaxis(other[:], 0, -1), before)
    assert len(READS) == 2
