"""The pixels under many boxes of a level, decoded chunk by chunk within a memory limit."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stp.images.chunks import Boxes, chunks_under, require_chunk
from stp.images.levels import Level

DEFAULT_MAX_BYTES = 256 * 2**20
BLOCK_ROWS = 256  # rows of pixels that are read at a time if chunks are lower
RUNS_PER_LIMIT = 32  # this part of the limit is decoded at a time if chunks are smaller
# Copies of what is being decoded: compressed, decoded, joined, and the run before.
DECODING_COPIES = 4
# The allocator keeps up to this many pixels of what was decoded.
ALLOCATOR_PIXELS = 4 * 2**20


class BoxGroup(NamedTuple):
    """Some boxes, and the pixels under them."""

    rows: np.ndarray  # (m,) of the boxes
    pixels: np.ndarray  # (y, x, 3), without what is outside the level
    corner: np.ndarray  # (2,) upper left corner of the pixels as x, y


class _Area(NamedTuple):
    """A rectangle of a level in pixels; `bottom` and `right` are not included."""

    top: int
    bottom: int
    left: int
    right: int


class _Memory(NamedTuple):
    """How the memory limit is divided."""

    buffer_pixels: int  # of the rows that are kept
    strip_width: int  # of the boxes that are read from top to bottom
    run_pixels: int  # decoded at a time


def read_boxes(level: Level, boxes: Boxes, max_bytes: int | None = None) -> Iterator[BoxGroup]:
    """Yield groups of boxes with the pixels under them, each box once, from top to bottom.

    Each chunk is decoded once. If `max_bytes` is too little for the width of all boxes, the level
    is read in strips from left to right, and a chunk under the border of two strips is decoded
    twice. The pixels of a group change when the next group is read.

    Parameters
    ----------
    level
        Level to read.
    boxes
        Boxes in pixels of the level.
    max_bytes
        Memory limit for pixels; by default 256 MiB, or as much as one box and one chunk take.

    Raises
    ------
    ValueError
        `max_bytes` is too little for one box and the chunks under it, or a chunk is missing.
    """
    boxes = boxes.clip(level)
    if isinstance(level.array, np.ndarray):
        height, width = level.shape
        pixels = level.read(0, height, 0, width)
        yield BoxGroup(np.arange(len(boxes.low)), pixels, np.zeros(2, dtype=int))
        return
    memory = _divide_memory(level, boxes, max_bytes)
    # One buffer for all strips: the allocator keeps memory that is freed and taken again.
    buffer = np.empty((memory.buffer_pixels, 3), np.uint8)
    for strip in _split_into_strips(boxes, memory.strip_width):
        from_top = strip[np.argsort(boxes.low[strip, 1], kind="stable")]
        yield from _read_strip(level, from_top, boxes.take(from_top), buffer, memory.run_pixels)


def _divide_memory(level: Level, boxes: Boxes, max_bytes: int | None) -> _Memory:
    """Divide the memory limit; raise ValueError if it is too little."""
    chunk_height, chunk_width = (int(np.diff(edges).max()) for edges in level.edges)
    box_width, box_height = (int(side) for side in (boxes.high - boxes.low).max(axis=0, initial=1))
    level_pixels = int(np.prod(level.shape))
    chunk_pixels = chunk_height * chunk_width
    buffer_rows = box_height + 1 + chunk_height
    least_buffer = buffer_rows * (box_width + chunk_width)
    needed = least_buffer + _decoding_pixels(chunk_pixels)
    if max_bytes is None:
        allowed = max(DEFAULT_MAX_BYTES // 3, needed)
    else:
        allowed = max_bytes // 3
    if allowed < needed:
        raise ValueError(
            f"max_bytes={max_bytes} is too little: a patch and the chunks under it, of "
            f"{chunk_height} x {chunk_width} pixels, take {3 * needed}; allow as much, or rewrite "
            "the image in smaller chunks"
        )
    run_pixels = max(chunk_pixels, min(allowed // RUNS_PER_LIMIT, level_pixels))
    if allowed - _decoding_pixels(run_pixels) < least_buffer:
        run_pixels = chunk_pixels
    buffer_pixels = allowed - _decoding_pixels(run_pixels)
    return _Memory(
        buffer_pixels=min(buffer_pixels, level_pixels + box_width * box_height),
        strip_width=buffer_pixels // buffer_rows,
        run_pixels=run_pixels,
    )


def _decoding_pixels(run_pixels: int) -> int:
    """Return how many pixels of memory it takes to decode this many (measured)."""
    copies = DECODING_COPIES * run_pixels
    return copies + min(copies, ALLOCATOR_PIXELS)


def _split_into_strips(boxes: Boxes, width: int) -> Iterator[np.ndarray]:
    """Yield rows of boxes, from left to right, that together are no wider than `width`."""
    order = np.argsort(boxes.low[:, 0], kind="stable")
    start = 0
    while start < len(order):
        remaining = order[start:]
        is_beyond = boxes.high[remaining, 0] - boxes.low[remaining[0], 0] > width
        stop = start + int(is_beyond.argmax()) if is_beyond.any() else len(order)
        yield order[start:stop]
        start = stop


# An example with chunks of 10 rows, so that rows 0, 10, 20 and 30 are their edges. Four boxes, 8
# pixels high, begin in rows 1, 4, 12 and 18; they end before rows 9, 12, 20 and 26. The buffer has
# room for 25 rows; rows 1 to 29, which the boxes need, are too many for it.
#
# 1. Group from row 1: its boxes must end by row 1 + 25 - 10 = 16, as up to one chunk more is
#    read. These are the first two. Rows 1 to 19 (to the next edge after 12) are read. The buffer
#    contains rows 1 to 19.
# 2. Group from row 12: its boxes must end by row 12 + 25 - 10 = 27. These are the other two. Rows
#    12 to 19 move up to the start of the buffer, and rows 20 to 29 are read behind them. The
#    buffer contains rows 12 to 29.
#
# Each row of chunks was decoded once, although two boxes of different groups share one.
def _read_strip(
    level: Level, rows: np.ndarray, boxes: Boxes, buffer: np.ndarray, run_pixels: int
) -> Iterator[BoxGroup]:
    """Yield the groups of a strip, whose boxes are sorted from top to bottom."""
    y_edges, _ = level.edges
    is_needed = chunks_under(level, boxes)
    left = int(boxes.low[:, 0].min())
    right = int(boxes.high[:, 0].max())
    top = boxes.low[:, 1]
    bottom = np.maximum.accumulate(boxes.high[:, 1])  # of each box and of all before it
    if is_needed.size == 1 and is_needed.any():
        pixels = level.read(int(top[0]), int(bottom[-1]), left, right)
        if level.is_empty(pixels):
            require_chunk(level, 0, 0)
        yield BoxGroup(rows, pixels, np.array([left, top[0]]))
        return
    chunk_height = int(np.diff(y_edges).max())
    n_rows = int(_next_edge(y_edges, bottom[-1]) - top[0])
    width = max(right - left, 1)
    room = min(len(buffer) // width, n_rows)
    lines = buffer[: room * width].reshape(room, width, 3)[:, : right - left]
    # The buffer contains the rows of the level from `first` to `after`, not included.
    first = int(top[0])
    after = first
    start = 0
    while start < len(rows):
        begin = int(top[start])
        if room == n_rows:
            stop = len(rows)
        else:
            n_fitting = int(np.searchsorted(bottom, begin + room - chunk_height, side="right"))
            stop = max(start + 1, n_fitting)
        after = max(after, begin)
        _move_up(lines[: after - first], begin - first)
        first = begin
        end = int(_next_edge(y_edges, bottom[stop - 1]))
        area = _Area(after, end, left, right)
        _read_area(level, is_needed, area, lines[after - first :], run_pixels)
        after = max(after, end)
        yield BoxGroup(rows[start:stop], lines[: after - first], np.array([left, first]))
        start = stop


def _next_edge(edges: np.ndarray, position: int) -> int:
    """Return the first edge at or after a position."""
    return edges[np.searchsorted(edges, position)]


def _move_up(lines: np.ndarray, n_rows: int) -> None:
    """Move lines up over the first rows of the buffer.

    They move in blocks that do not overlap, because numpy would copy overlapping ones first.
    """
    if not n_rows:
        return
    for start in range(0, len(lines) - n_rows, n_rows):
        stop = min(start + n_rows, len(lines) - n_rows)
        lines[start:stop] = lines[start + n_rows : stop + n_rows]


def _read_area(
    level: Level, is_needed: np.ndarray, area: _Area, out: np.ndarray, run_pixels: int
) -> None:
    """Fill `out` with the needed chunks of an area, a run of neighboring chunks at a time."""
    y_edges, x_edges = level.edges
    row = int(np.searchsorted(y_edges, area.top, side="right")) - 1
    last = int(np.searchsorted(y_edges, area.bottom, side="right")) - 1
    block_rows = min(BLOCK_ROWS, run_pixels // int(np.diff(x_edges).max()))
    while row < last:
        after = int(np.searchsorted(y_edges, y_edges[row] + block_rows, side="right")) - 1
        after = min(max(after, row + 1), last)
        top = max(int(y_edges[row]), area.top)
        bottom = int(y_edges[after])
        run_width = run_pixels // int(y_edges[after] - y_edges[row])
        columns_needed = np.logical_or.reduce(is_needed[row:after])
        for begin, end in _list_runs(columns_needed, x_edges, run_width):
            left = max(int(x_edges[begin]), area.left)
            right = min(int(x_edges[end]), area.right)
            pixels = level.read(top, bottom, left, right)
            chunks = np.argwhere(is_needed[row:after, begin:end]) + (row, begin)
            _check_pixels(level, pixels, _Area(top, bottom, left, right), chunks)
            lines = slice(top - area.top, bottom - area.top)
            columns = slice(left - area.left, right - area.left)
            out[lines, columns] = pixels
            del pixels  # before the next run is decoded
        row = after


def _list_runs(is_needed: np.ndarray, edges: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of needed chunks begin and end; only a single chunk exceeds `width`."""
    changes = np.flatnonzero(np.diff(is_needed, prepend=False, append=False))
    for begin, stop in changes.reshape(-1, 2):
        while begin < stop:
            end = int(np.searchsorted(edges, edges[begin] + width, side="right")) - 1
            end = min(max(end, begin + 1), stop)
            yield begin, end
            begin = end


def _check_pixels(level: Level, pixels: np.ndarray, area: _Area, chunks: np.ndarray) -> None:
    """Raise ValueError if a chunk (row, column) of the area is missing.

    Only chunks that show nothing are looked up on disk.
    """
    y_edges, x_edges = level.edges
    for row, column in chunks:
        top, bottom = y_edges[row : row + 2].clip(area.top, area.bottom) - area.top
        left, right = x_edges[column : column + 2].clip(area.left, area.right) - area.left
        chunk = pixels[top:bottom, left:right]
        middle_row = chunk[len(chunk) // 2]  # looked at first, because it is quick
        if level.is_empty(middle_row) and level.is_empty(chunk):
            require_chunk(level, row, column)
