import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import dask.array
import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings

from stp.images.chunks import Boxes, require_chunks
from stp.images.files.arrays import FileArray
from stp.images.levels import Level, with_gaps
from stp.images.windows import DECODING_COPIES, read_windows

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


def check(boxes, windows, image=IMAGE):
    """Compare the pixels of each box with the image, in the middle of much white."""
    margin = 100
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    rows = []
    for row, pixels in windows:
        x0, y0 = boxes.low[row] + margin
        x1, y1 = boxes.high[row] + margin
        np.testing.assert_array_equal(pixels, wide[y0:y1, x0:x1])
        rows.append(row)
    assert sorted(rows) == list(range(len(boxes.low)))


CORNERS = st.lists(st.tuples(st.integers(-60, 330), st.integers(-60, 230)), max_size=30)


@settings(deadline=None, max_examples=150)
@given(
    corners=CORNERS,
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
    check(boxes, read_windows(Level(counted, channels_first), boxes))
    assert counted.decoded == dict.fromkeys(list_chunks_under(boxes, chunks), 1)


@settings(deadline=None, max_examples=100)
@given(
    corners=CORNERS.filter(len),
    side=st.integers(1, 70),
    chunks=st.sampled_from([(16, 16, 3), (64, 50, 3), (7, 100, 3)]),
    more=st.integers(0, 100_000),
)
def test_under_any_limit_no_chunk_is_decoded_more_than_twice(corners, side, chunks, more):
    low = np.array(corners)
    boxes = Boxes(low, low + side)
    counted = Chunked(IMAGE, chunks)
    limit = least_bytes(Level(counted), boxes) + more
    check(boxes, read_windows(Level(counted), boxes, limit))
    assert set(counted.decoded) == list_chunks_under(boxes, chunks)
    assert max(counted.decoded.values(), default=0) <= 2
    assert DECODING_COPIES * counted.largest <= limit


def least_bytes(level, boxes):
    """Return the least memory that boxes take, as an error names it."""
    with pytest.raises(ValueError, match="is too little") as error:
        next(read_windows(level, boxes, 1))
    return int(str(error.value).split("take ")[1].split(";")[0])


def test_the_limit_that_an_error_names_is_by_hand_and_enough():
    # A box of 20 px lies on up to 3 x 3 chunks of 16 px. Four columns are kept, so that chunks in
    # the middle belong to two passes at most.
    low = np.array([[15, 15], [40, 100]])
    boxes = Boxes(low, low + 20)
    counted = Chunked(IMAGE, (16, 16, 3))
    least = (3 * 4 + DECODING_COPIES) * 16 * 16 * 3
    assert least_bytes(Level(counted), boxes) == least
    with pytest.raises(ValueError, match=f"take {least};"):
        next(read_windows(Level(counted), boxes, least - 1))
    assert counted.decoded == {}
    check(boxes, read_windows(Level(counted), boxes, least))


def test_a_wide_level_is_read_in_few_passes():
    image = np.random.default_rng(0).integers(1, 256, (96, 3200, 3)).astype(np.uint8)
    low = np.stack(np.meshgrid(np.arange(0, 3170, 11), np.arange(0, 70, 9)), -1).reshape(-1, 2)
    boxes = Boxes(low, low + 24)
    counted = Chunked(image, (32, 32, 3))
    # 100 columns of chunks, in two rows; there is room for 20 of them.
    limit = (2 * 20 + DECODING_COPIES) * 32 * 32 * 3
    check(boxes, read_windows(Level(counted), boxes, limit), image)
    counts = np.array(list(counted.decoded.values()))
    assert counts.max() == 2
    assert (counts == 2).sum() <= 3 * 6  # a column between two passes


def test_boxes_come_by_rows_of_chunks_and_from_left_to_right():
    low = np.array([[40, 3], [20, 17], [10, 9], [0, 40], [5, 16]])
    level = Level(Chunked(IMAGE, (16, 16, 3)))
    rows = [int(row) for row, _ in read_windows(level, Boxes(low, low + 4))]
    assert rows == [2, 0, 4, 1, 3]


def test_large_chunks_are_decoded_one_at_a_time():
    low = np.random.default_rng(0).integers(0, 200, (30, 2))
    boxes = Boxes(low, low + 20)
    counted = Chunked(IMAGE, (100, 100, 3))
    check(boxes, read_windows(Level(counted), boxes, 4 * IMAGE.nbytes))
    assert counted.largest <= 100 * 100 * 3
    assert set(counted.decoded.values()) == {1}


def test_neighboring_small_chunks_are_decoded_together():
    counted = Chunked(IMAGE, (16, 16, 3))
    low = np.stack(np.meshgrid(np.arange(0, 280, 10), [3]), -1).reshape(-1, 2)
    boxes = Boxes(low, low + 8)
    check(boxes, read_windows(Level(counted), boxes))
    assert counted.largest == 16 * 288 * 3


def test_chunks_of_different_sizes_are_read():
    array = dask.array.from_array(IMAGE, chunks=((100, 1, 50, 60), (7, 200, 100), 3))
    low = np.random.default_rng(0).integers(-30, 300, (40, 2)).clip(None, (300, 200))
    boxes = Boxes(low, low + 33)
    check(boxes, read_windows(Level(array), boxes))
    check(boxes, read_windows(Level(array), boxes, least_bytes(Level(array), boxes)))


@dataclass
class CountedStrips(FileArray):
    """Strips of a file of an image, as in many TIFFs; it counts how often it is read."""

    pixels: np.ndarray = field(default_factory=lambda: IMAGE)
    n_reads: int = 0

    def _open(self):
        return self.pixels

    def __getitem__(self, key):
        self.n_reads += 1
        return super().__getitem__(key)


def test_low_strips_of_a_file_are_read_together():
    array = CountedStrips(Path("none.tif"), IMAGE.shape, IMAGE.dtype, (1, 307, 3))
    low = np.random.default_rng(0).integers(0, 180, (30, 2))
    boxes = Boxes(low, low + 30)
    check(boxes, read_windows(Level(array), boxes))
    assert array.n_reads == 2  # up to 128 rows
    array.n_reads = 0
    check(boxes, read_windows(Level(array), boxes, least_bytes(Level(array), boxes)))
    assert array.n_reads > 100


def process_kb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the memory")
@pytest.mark.parametrize("limit", [32, 64])
def test_large_chunks_take_no_more_memory_than_the_limit(tmp_path, limit):
    shape = (3, 3072, 16_384)
    array = zarr.create_array(tmp_path / "a", shape=shape, dtype=np.uint8, chunks=(3, 1024, 1024))
    array[:] = 7  # of 144 MiB; two rows of chunks are 96
    x = np.arange(0, 16_100, 140)
    low = np.stack(np.meshgrid(x, np.arange(0, 2800, 140)), -1).reshape(-1, 2)
    boxes = Boxes(low, low + 224)
    level = Level(array, channels_first=True)
    next(read_windows(level, boxes.take(np.arange(1))))  # imports
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = process_kb("VmRSS")
    for _, pixels in read_windows(level, boxes, limit * 2**20):
        assert pixels[-1, -1, 0] == 7
    assert (process_kb("VmHWM") - before) / 1024 <= limit


def test_a_limit_under_one_patch_is_refused_before_anything_is_read():
    counted = Chunked(IMAGE, (100, 150, 3))
    low = np.array([[10, 10]])
    with pytest.raises(
        ValueError,
        match=r"max_bytes=1000 is too little: a patch and the chunks .* 100 x 150 pixels",
    ):
        next(read_windows(Level(counted), Boxes(low, low + 20), 1000))
    assert counted.decoded == {}


def test_arrays_in_memory_are_not_copied_whatever_the_limit(tmp_path):
    image = np.memmap(tmp_path / "a", np.uint8, "w+", shape=(10_000, 10_000, 3))
    image[9000, 9000] = 5
    low = np.array([[9000, 9000], [-5, 20]])
    tracemalloc.start()
    windows = dict(read_windows(Level(image), Boxes(low, low + 20), 1))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert windows[0][0, 0].tolist() == [5, 5, 5]
    assert (windows[1][:, :5] == 255).all() and not windows[1][:, 5:].any()


def test_a_missing_image_of_one_chunk_is_refused_if_it_is_needed():
    level = Level(zarr.create_array({}, data=np.zeros((50, 60, 3), np.uint8), chunks=(50, 60, 3)))
    low = np.array([[10, 10]])
    with pytest.raises(ValueError, match="its chunk at x = 0, y = 0 is missing"):
        list(read_windows(level, Boxes(low, low + 20)))
    ((_, pixels),) = read_windows(level, Boxes(low + 90, low + 95))
    assert (pixels == 255).all()


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
    assert list(read_windows(level, next_to_hole))
    require_chunks(level, next_to_hole)
    for read in (read_windows, require_chunks):
        with pytest.raises(
            ValueError, match="no pixels where spots are: its chunk at x = 100, y = 64 is missing"
        ):
            list(read(level, on_hole) or ())
    assert list(read_windows(*with_gaps((level,)), on_hole))


@pytest.mark.parametrize(
    "array",
    [Chunked(WITH_HOLE, (64, 50, 3)), make_zarr(None, True), make_zarr((128, 100, 3), False)],
)
def test_a_black_chunk_is_not_missing(array):
    low = np.array([[0, 70], [120, 70]])
    assert list(read_windows(Level(array), Boxes(low, low + 30)))
    require_chunks(Level(array), Boxes(low, low + 30))
