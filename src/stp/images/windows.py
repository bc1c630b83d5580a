"""The pixels under many boxes of a level, from decoded chunks that are kept while boxes need them.

A block is what is decoded as a whole: a chunk, or several low strips of a TIFF.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from stp.images.chunks import Boxes, Edges, chunk_spans, count_boxes, require_chunk, require_chunks
from stp.images.files.arrays import FileArray
from stp.images.levels import Level
from stp.images.patches import WHITE, cut_window, empty_pixels

DEFAULT_MAX_BYTES = 256 * 2**20
STRIP_ROWS = 128  # lower strips of a TIFF are read together, up to so many rows of pixels
READS_PER_LIMIT = 32  # neighboring blocks are read together, up to this part of the limit
# Copies of what is being decoded: compressed, decoded, joined, and what the allocator keeps.
DECODING_COPIES = 6


class _Plan(NamedTuple):
    """How the memory limit is divided."""

    edges: Edges  # of blocks
    spans: np.ndarray  # (n, 4) blocks under each box: first row, row after, first column, ...
    n_kept: int  # blocks that are kept at the same time, at most
    first_columns: int  # columns of blocks in which the boxes of one pass begin
    read_bytes: int  # of blocks that are read together, or of one block if it is larger


def read_windows(
    level: Level, boxes: Boxes, max_bytes: int | None = None, *, first: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the row of each box and the pixels under it (y, x, 3), white outside the level.

    Boxes come by rows of chunks from top to bottom, and from left to right in each. A chunk is
    decoded for the first box over it, and kept until the last one is read. If the limit is too
    little for the width of all boxes, they are read in several passes from left to right. At most
    two passes share a chunk, which is then decoded twice.

    Parameters
    ----------
    level
        Level to read.
    boxes
        Boxes in pixels of the level.
    max_bytes
        Memory limit for pixels; by default 256 MiB, or as much as one box and one chunk take.
    first
        Number of boxes, in this order, that are skipped without reading them.

    Raises
    ------
    ValueError
        `max_bytes` is too little for one box and the chunks under it, or a chunk is missing.
    """
    if isinstance(level.array, np.ndarray):
        yield from _cut_from_whole(level, boxes, first)
        return
    inside = boxes.clip(level)
    plan = _plan(level, inside, max_bytes)
    has_pixels = (inside.high > inside.low).all(axis=1)
    if has_pixels.any() and all(len(edges) == 2 for edges in level.edges):
        yield from _cut_from_whole(level, boxes, first)
        return
    passes = plan.spans[:, 2] // plan.first_columns
    order = np.lexsort((inside.low[:, 0], plan.spans[:, 0], passes))[first:]
    cache = _BlockCache(level, plan)
    for rows in np.split(order, np.flatnonzero(np.diff(passes[order])) + 1):
        cache.begin_pass(rows)
        for row in rows:
            yield row, cache.read(row, boxes)


def _cut_from_whole(level: Level, boxes: Boxes, first: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pixels under boxes of a level in memory, or of one chunk, from a box on."""
    height, width = level.shape
    pixels = level.read(0, height, 0, width)
    if not isinstance(level.array, np.ndarray) and level.is_empty(pixels):
        require_chunks(level, boxes)
    for row in range(first, len(boxes.low)):
        yield row, cut_window(pixels, boxes.low[row], boxes.high[row])


def _plan(level: Level, inside: Boxes, max_bytes: int | None) -> _Plan:
    """Divide the memory limit; raise ValueError if it is too little."""
    y_edges, x_edges = level.edges
    height, width = (int(np.diff(edges).max()) for edges in level.edges)
    spans = chunk_spans(level.edges, inside)
    box_rows, box_columns = _largest_span(spans)
    chunk_bytes = 3 * height * width
    # With fewer columns, more than two passes would share a chunk.
    least_columns = min(max(box_columns, 2 * (box_columns - 1)), len(x_edges) - 1)
    least_bytes = box_rows * least_columns * chunk_bytes
    needed = least_bytes + DECODING_COPIES * chunk_bytes
    limit = max(DEFAULT_MAX_BYTES, needed) if max_bytes is None else max_bytes
    if limit < needed:
        raise ValueError(
            f"max_bytes={max_bytes} is too little: a patch and the chunks under it, of {height} x "
            f"{width} pixels, take {needed}; allow as much, or rewrite the image in smaller chunks"
        )
    read_bytes = max(chunk_bytes, (limit - least_bytes) // READS_PER_LIMIT)
    if isinstance(level.array, FileArray) and len(x_edges) == 2:
        n_joined = max(1, min(STRIP_ROWS, read_bytes // (3 * width)) // height)
        y_edges = np.append(y_edges[:-1:n_joined], y_edges[-1])
        height = int(np.diff(y_edges).max())
        spans = chunk_spans((y_edges, x_edges), inside)
        box_rows, _ = _largest_span(spans)
    kept_bytes = limit - DECODING_COPIES * read_bytes
    columns = max(least_columns, kept_bytes // (box_rows * 3 * height * width))
    n_kept = box_rows * min(columns, len(x_edges) - 1)
    first_columns = columns - box_columns + 1
    return _Plan((y_edges, x_edges), spans, n_kept, first_columns, read_bytes)


def _largest_span(spans: np.ndarray) -> tuple[int, int]:
    """Return over how many rows and columns of blocks a box lies at most."""
    row, row_after, column, column_after = spans.T
    return int((row_after - row).max(initial=1)), int((column_after - column).max(initial=1))


class _BlockCache:
    """Decoded blocks, each kept until no more box of the pass lies over it."""

    def __init__(self, level: Level, plan: _Plan) -> None:
        self._level = level
        self._spans = plan.spans
        self._y_edges, self._x_edges = (edges.tolist() for edges in plan.edges)
        height, width = (int(np.diff(edges).max()) for edges in plan.edges)
        self._read_width = plan.read_bytes // (3 * height)
        # One buffer for all blocks, because the allocator keeps memory that is freed.
        self._buffer = empty_pixels((plan.n_kept, height, width, 3))
        self._free = list(reversed(range(plan.n_kept)))
        self._slots: dict[tuple[int, int], int] = {}
        self._n_boxes = np.empty((0, 0), int)

    def begin_pass(self, rows: np.ndarray) -> None:
        """Count for each block the boxes in these rows, which `read` is called for next."""
        shape = len(self._y_edges) - 1, len(self._x_edges) - 1
        self._n_boxes = count_boxes(self._spans[rows], shape)

    def read(self, row: int, boxes: Boxes) -> np.ndarray:
        """Return the pixels under a box, white outside the level."""
        left, top = boxes.low[row].tolist()
        right, bottom = boxes.high[row].tolist()
        window = empty_pixels((bottom - top, right - left, 3))
        height, width = self._level.shape
        if top < 0 or left < 0 or bottom > height or right > width:
            window[...] = WHITE
        first_row, row_after, first_column, column_after = self._spans[row].tolist()
        for block in product(range(first_row, row_after), range(first_column, column_after)):
            if block not in self._slots:
                self._decode(*block)
            y = self._y_edges[block[0]]
            x = self._x_edges[block[1]]
            y0, y1 = max(top, y), min(bottom, self._y_edges[block[0] + 1])
            x0, x1 = max(left, x), min(right, self._x_edges[block[1] + 1])
            part = self._buffer[self._slots[block], y0 - y : y1 - y, x0 - x : x1 - x]
            window[y0 - top : y1 - top, x0 - left : x1 - left] = part
            self._n_boxes[block] -= 1
            if not self._n_boxes[block]:
                self._free.append(self._slots.pop(block))
        return window

    def _decode(self, row: int, column: int) -> None:
        """Decode a block, and those to its right that will be needed, as far as memory allows."""
        x_edges = self._x_edges
        stop = column + 1
        while (
            stop < len(x_edges) - 1
            and x_edges[stop + 1] - x_edges[column] <= self._read_width
            and self._n_boxes[row, stop]
            and (row, stop) not in self._slots
        ):
            stop += 1
        top, bottom = self._y_edges[row : row + 2]
        left = x_edges[column]
        pixels = self._level.read(top, bottom, left, x_edges[stop])
        for each in range(column, stop):
            part = pixels[:, x_edges[each] - left : x_edges[each + 1] - left]
            if self._level.is_empty(part):
                require_chunk(self._level, row, each)
            slot = self._free.pop()
            self._buffer[slot, : part.shape[0], : part.shape[1]] = part
            self._slots[row, each] = slot
