import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings

from stp.images.levels import Level, with_gaps
from stp.images.windows import check_chunks, windows

IMAGE = np.random.default_rng(0).integers(1, 256, (211, 307, 3)).astype(np.uint8)


class Chunked:
    """An array in chunks that counts how often each is decoded."""

    def __init__(self, array, chunks, channels_first=False):
        self.array, self.chunks, self.shape, self.ndim, self.dtype = (
            array,
            chunks,
            array.shape,
            3,
            array.dtype,
        )
        self.first = int(channels_first)
        self.decoded, self.largest = {}, 0

    def __getitem__(self, key):
        rows, columns = key[self.first : self.first + 2]
        high, wide = self.chunks[self.first : self.first + 2]
        for y in range(rows.start // high, -(-rows.stop // high)):
            for x in range(columns.start // wide, -(-columns.stop // wide)):
                self.decoded[y, x] = self.decoded.get((y, x), 0) + 1
        window = self.array[key]
        self.largest = max(self.largest, window.nbytes)
        return window


def under(low, high, chunks):
    """List the chunks under boxes, one box at a time."""
    limit = np.array(IMAGE.shape[1::-1])
    found = set()
    for (x0, y0), (x1, y1) in zip(low.clip(0, limit), high.clip(0, limit), strict=True):
        if x1 > x0 and y1 > y0:
            rows, columns = (
                range(y0 // chunks[0], -(-y1 // chunks[0])),
                range(x0 // chunks[1], -(-x1 // chunks[1])),
            )
            found |= {(y, x) for y in rows for x in columns}
    return found


def check(low, high, groups):
    """Compare what lies under each box, inside the picture, with the picture; each box comes once."""
    limit, seen, held = np.array(IMAGE.shape[1::-1]), [], 0
    for rows, pixels, corner in groups:
        held = max(held, pixels.nbytes)
        for row in rows:
            (x0, y0), (x1, y1) = low[row].clip(0, limit), high[row].clip(0, limit)
            found = pixels[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
            np.testing.assert_array_equal(found, IMAGE[y0:y1, x0:x1])
        seen.extend(rows)
    assert sorted(seen) == list(range(len(low)))
    return held


@settings(deadline=None, max_examples=150)
@given(
    corners=st.lists(st.tuples(st.integers(-60, 330), st.integers(-60, 230)), max_size=30),
    side=st.integers(1, 70),
    chunks=st.sampled_from([(16, 16, 3), (64, 50, 2), (211, 307, 3), (300, 20, 3), (1, 307, 3)]),
    channels_first=st.booleans(),
)
def test_each_chunk_under_a_box_is_decoded_once_and_no_other(corners, side, chunks, channels_first):
    low = np.array(corners, dtype=int).reshape(-1, 2)
    array = np.moveaxis(IMAGE, -1, 0) if channels_first else IMAGE
    first = (chunks[2], *chunks[:2]) if channels_first else chunks
    counted = Chunked(array, first, channels_first)
    check(low, low + side, windows(Level(counted, channels_first), low, low + side))
    assert set(counted.decoded.values()) <= {1}
    needed = under(low, low + side, chunks)
    assert needed <= set(counted.decoded)
    if chunks[0] >= 211 or not needed:  # lower ones are read several rows at a time
        assert set(counted.decoded) == needed


LEAST = 3 * (
    (20 + 1 + 16) * (20 + 16) + 8 * 16 * 16
)  # under a box of 20 px, and to decode a chunk of 16 px


@settings(deadline=None, max_examples=100)
@given(
    corners=st.lists(
        st.tuples(st.integers(-20, 320), st.integers(-20, 220)), min_size=1, max_size=40
    ),
    more=st.integers(0, 200_000),
)
def test_what_is_held_stays_under_the_limit(corners, more):
    low = np.array(corners)
    counted = Chunked(IMAGE, (16, 16, 3))
    held = check(low, low + 20, windows(Level(counted), low, low + 20, LEAST + more))
    assert held + 8 * counted.largest <= LEAST + more


def test_the_limit_that_is_named_is_enough():
    low = np.random.default_rng(0).integers(0, 200, (30, 2))
    with pytest.raises(ValueError, match=f"take {LEAST};"):
        next(windows(Level(Chunked(IMAGE, (16, 16, 3))), low, low + 20, LEAST - 3))
    check(low, low + 20, windows(Level(Chunked(IMAGE, (16, 16, 3))), low, low + 20, LEAST))


def test_large_chunks_are_decoded_one_at_a_time():
    low = np.random.default_rng(0).integers(0, 200, (30, 2))
    counted = Chunked(IMAGE, (100, 100, 3))
    check(low, low + 20, windows(Level(counted), low, low + 20, 4 * IMAGE.nbytes))
    assert counted.largest <= 100 * 100 * 3
    assert set(counted.decoded.values()) == {1}


def test_rows_that_the_next_boxes_share_are_not_copied_beside():
    line = np.linspace(0, 1, 200)
    low = np.stack([line * 970 % 500, line * 1600], axis=1).astype(int)
    image = np.ones((2000, 1000, 3), np.uint8)
    high, limit = low + (30, 400), image.nbytes // 2
    tracemalloc.start()
    for rows, pixels, corner in windows(Level(Chunked(image, (16, 16, 3))), low, high, limit):
        del rows, pixels, corner
    assert tracemalloc.get_traced_memory()[1] < limit
    tracemalloc.stop()


def test_a_limit_under_one_patch_is_refused_before_anything_is_read():
    counted, low = Chunked(IMAGE, (100, 150, 3)), np.array([[10, 10]])
    with pytest.raises(
        ValueError,
        match=r"max_bytes=1000 is too little: a patch and the chunks .* 100 x 150 pixels",
    ):
        next(windows(Level(counted), low, low + 20, 1000))
    assert counted.decoded == {}


def test_arrays_in_memory_are_not_copied():
    low = np.array([[10, 10], [0, 5]])
    ((rows, pixels, corner),) = windows(Level(IMAGE), low, low + 20)
    assert (rows.tolist(), corner.tolist()) == ([0, 1], [0, 0])
    assert np.shares_memory(pixels, IMAGE)


HOLED = IMAGE.copy()
HOLED[64:128, 100:150] = 0


def stored(shards, black):
    """Put the picture with its black chunk into zarr, which writes such a chunk only where it is told to."""
    how = {"chunks": (64, 50, 3), "shards": shards, "config": {"write_empty_chunks": black}}
    return zarr.create_array({}, data=HOLED, **how)


@pytest.mark.parametrize("shards", [None, (64, 50, 3)])
def test_a_missing_chunk_is_refused_where_it_is_needed(shards):
    level = Level(stored(shards, black=False))
    beside, on_it = np.array([[0, 70], [0, 170]]), np.array([[0, 70], [120, 70]])
    assert list(windows(level, beside, beside + 30))
    check_chunks(level, beside, beside + 30)
    for read in (windows, check_chunks):
        with pytest.raises(
            ValueError, match="no pixels where spots are: its chunk at x = 100, y = 64 is missing"
        ):
            list(read(level, on_it, on_it + 30) or ())
    assert list(windows(*with_gaps((level,)), on_it, on_it + 30))


@pytest.mark.parametrize(
    "array", [Chunked(HOLED, (64, 50, 3)), stored(None, True), stored((128, 100, 3), False)]
)
def test_a_black_chunk_is_not_missing(array):
    low = np.array([[0, 70], [120, 70]])
    assert list(windows(Level(array), low, low + 30))
    check_chunks(Level(array), low, low + 30)
