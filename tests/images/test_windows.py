import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings

from stp.images.chunks import Boxes, require_chunks
from stp.images.levels import Level, with_gaps
from stp.images.windows import read_boxes

IMAGE = np.random.default_rng(0).integers(1, 256, (211, 307, 3)).astype(np.uint8)


class Chunked:
    """An array in chunks that counts how often each is decoded."""

    def __init__(self, array, chunks, channels_first=False):
        self.array = array
        self.chunks = chunks
        self.shape = array.shape
        self.ndim = 3
        self.dtype = array.dtype
        self.first = int(channels_first)
        self.decoded = {}
        self.largest = 0

    def __getitem__(self, key):
        rows, columns = key[self.first : self.first + 2]
        high, wide = self.chunks[self.first : self.first + 2]
        for y in range(rows.start // high, -(-rows.stop // high)):
            for x in range(columns.start // wide, -(-columns.stop // wide)):
                self.decoded[y, x] = self.decoded.get((y, x), 0) + 1
        window = self.array[key]
        self.largest = max(self.largest, window.nbytes)
        return window


def list_chunks_under(boxes, chunks):
    """List the chunks under boxes, one box at a time."""
    boxes = boxes.clip(Level(IMAGE))
    under = set()
    for (x0, y0), (x1, y1) in zip(*boxes, strict=True):
        if x1 > x0 and y1 > y0:
            rows = range(y0 // chunks[0], -(-y1 // chunks[0]))
            columns = range(x0 // chunks[1], -(-x1 // chunks[1]))
            under |= {(y, x) for y in rows for x in columns}
    return under


def check(boxes, groups):
    """Compare the pixels under each box with the image; return the most bytes of a group."""
    boxes = boxes.clip(Level(IMAGE))
    rows = []
    most_bytes = 0
    for group in groups:
        most_bytes = max(most_bytes, group.pixels.nbytes)
        for row in group.rows:
            x0, y0 = boxes.low[row]
            x1, y1 = boxes.high[row]
            left, top = group.corner
            pixels = group.pixels[y0 - top : y1 - top, x0 - left : x1 - left]
            np.testing.assert_array_equal(pixels, IMAGE[y0:y1, x0:x1])
        rows.extend(group.rows)
    assert sorted(rows) == list(range(len(boxes.low)))
    return most_bytes


@settings(deadline=None, max_examples=150)
@given(
    corners=st.lists(st.tuples(st.integers(-60, 330), st.integers(-60, 230)), max_size=30),
    side=st.integers(1, 70),
    chunks=st.sampled_from([(16, 16, 3), (64, 50, 2), (211, 307, 3), (300, 20, 3), (1, 307, 3)]),
    channels_first=st.booleans(),
)
def test_each_chunk_under_a_box_is_decoded_once_and_no_other(corners, side, chunks, channels_first):
    low = np.array(corners, dtype=int).reshape(-1, 2)
    boxes = Boxes(low, low + side)
    array = np.moveaxis(IMAGE, -1, 0) if channels_first else IMAGE
    chunk_shape = (chunks[2], *chunks[:2]) if channels_first else chunks
    counted = Chunked(array, chunk_shape, channels_first)
    check(boxes, read_boxes(Level(counted, channels_first), boxes))
    assert set(counted.decoded.values()) <= {1}
    needed = list_chunks_under(boxes, chunks)
    assert needed <= set(counted.decoded)
    if chunks[0] >= 211 or not needed:  # lower ones are read several rows at a time
        assert set(counted.decoded) == needed


# Memory for a box of 20 px and the chunks of 16 px under it, and to decode one of these.
LEAST = 3 * ((20 + 1 + 16) * (20 + 16) + 8 * 16 * 16)


@settings(deadline=None, max_examples=100)
@given(
    corners=st.lists(
        st.tuples(st.integers(-20, 320), st.integers(-20, 220)), min_size=1, max_size=40
    ),
    more=st.integers(0, 200_000),
)
def test_memory_stays_under_the_limit(corners, more):
    low = np.array(corners)
    boxes = Boxes(low, low + 20)
    counted = Chunked(IMAGE, (16, 16, 3))
    most_bytes = check(boxes, read_boxes(Level(counted), boxes, LEAST + more))
    assert most_bytes + 8 * counted.largest <= LEAST + more


def random_boxes():
    low = np.random.default_rng(0).integers(0, 200, (30, 2))
    return Boxes(low, low + 20)


def test_the_limit_that_an_error_names_is_enough():
    level = Level(Chunked(IMAGE, (16, 16, 3)))
    with pytest.raises(ValueError, match=f"take {LEAST};"):
        next(read_boxes(level, random_boxes(), LEAST - 3))
    check(random_boxes(), read_boxes(level, random_boxes(), LEAST))


def test_large_chunks_are_decoded_one_at_a_time():
    counted = Chunked(IMAGE, (100, 100, 3))
    check(random_boxes(), read_boxes(Level(counted), random_boxes(), 4 * IMAGE.nbytes))
    assert counted.largest <= 100 * 100 * 3
    assert set(counted.decoded.values()) == {1}


def test_rows_that_the_next_boxes_share_are_not_copied():
    line = np.linspace(0, 1, 200)
    low = np.stack([line * 970 % 500, line * 1600], axis=1).astype(int)
    image = np.ones((2000, 1000, 3), np.uint8)
    level = Level(Chunked(image, (16, 16, 3)))
    limit = image.nbytes // 2
    tracemalloc.start()
    for group in read_boxes(level, Boxes(low, low + (30, 400)), limit):
        del group
    assert tracemalloc.get_traced_memory()[1] < limit
    tracemalloc.stop()


def test_a_limit_under_one_patch_is_refused_before_anything_is_read():
    counted = Chunked(IMAGE, (100, 150, 3))
    low = np.array([[10, 10]])
    with pytest.raises(
        ValueError,
        match=r"max_bytes=1000 is too little: a patch and the chunks .* 100 x 150 pixels",
    ):
        next(read_boxes(Level(counted), Boxes(low, low + 20), 1000))
    assert counted.decoded == {}


def test_arrays_in_memory_are_not_copied():
    low = np.array([[10, 10], [0, 5]])
    ((rows, pixels, corner),) = read_boxes(Level(IMAGE), Boxes(low, low + 20))
    assert (rows.tolist(), corner.tolist()) == ([0, 1], [0, 0])
    assert np.shares_memory(pixels, IMAGE)


WITH_HOLE = IMAGE.copy()
WITH_HOLE[64:128, 100:150] = 0


def make_zarr(shards, write_black):
    """Write the image into zarr, which leaves out its black chunk unless asked to write it."""
    config = {"write_empty_chunks": write_black}
    return zarr.create_array({}, data=WITH_HOLE, chunks=(64, 50, 3), shards=shards, config=config)


@pytest.mark.parametrize("shards", [None, (64, 50, 3)])
def test_a_missing_chunk_is_refused_if_it_is_needed(shards):
    level = Level(make_zarr(shards, write_black=False))
    low = np.array([[0, 70], [0, 170]])
    next_to_hole = Boxes(low, low + 30)
    low = np.array([[0, 70], [120, 70]])
    on_hole = Boxes(low, low + 30)
    assert list(read_boxes(level, next_to_hole))
    require_chunks(level, next_to_hole)
    for read in (read_boxes, require_chunks):
        with pytest.raises(
            ValueError, match="no pixels where spots are: its chunk at x = 100, y = 64 is missing"
        ):
            list(read(level, on_hole) or ())
    assert list(read_boxes(*with_gaps((level,)), on_hole))


@pytest.mark.parametrize(
    "array",
    [Chunked(WITH_HOLE, (64, 50, 3)), make_zarr(None, True), make_zarr((128, 100, 3), False)],
)
def test_a_black_chunk_is_not_missing(array):
    low = np.array([[0, 70], [120, 70]])
    assert list(read_boxes(Level(array), Boxes(low, low + 30)))
    require_chunks(Level(array), Boxes(low, low + 30))
