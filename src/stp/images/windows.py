"""Read what lies under many boxes of a level: every chunk decoded once, and no more rows held than a limit allows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

DEFAULT_BYTES = 256 * 2**20
BLOCK = 256  # rows read at a time where chunks are lower
COPIES = 4  # of what is being decoded: compressed, decoded, joined, and the one before
KEPT = 4 * 2**20  # pixels' worth of memory that the allocator keeps of what was decoded
RUNS = 32  # as many parts of the limit are decoded at a time, where chunks are smaller

Group = tuple[np.ndarray, np.ndarray, np.ndarray]


def windows(
    level: Any, low: np.ndarray, high: np.ndarray, max_bytes: int | None = None
) -> Iterator[Group]:
    """Read a level under boxes, group by group from top to bottom.

    Where `max_bytes` does not hold the width of the boxes, the level is read in strips from left to right, and a
    chunk under the border of two strips is decoded twice.

    Parameters
    ----------
    level
        A `stp.images.levels.Level`.
    low, high
        Corners (n, 2) of the boxes as x, y: whole pixels, also outside the level.
    max_bytes
        Limit on pixels in memory; None for 256 MiB, or more where a single chunk needs more.

    Yields
    ------
    Rows of the boxes (m,), each once; the pixels (y, x, 3) under them, less what is outside the level; and the
    corner of these pixels as x, y. Pixels change when the next group is asked for.

    Raises
    ------
    ValueError
        `max_bytes` does not hold one box and the chunks under it, or one of these is missing.
    """
    limit = np.array(level.shape[::-1])
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    if isinstance(level.array, np.ndarray):
        yield np.arange(len(low)), level.read(0, limit[1], 0, limit[0]), np.zeros(2, dtype=int)
        return
    pixels, width, run = _room(level, low, high, max_bytes)
    held = np.empty(
        (pixels, 3), np.uint8
    )  # once: what is freed and taken again stays with the allocator
    for strip in _strips(low[:, 0], high[:, 0], width):
        yield from _bands(
            level, strip[np.argsort(low[strip, 1], kind="stable")], low, high, held, run
        )


def _room(
    level: Any, low: np.ndarray, high: np.ndarray, max_bytes: int | None
) -> tuple[int, int, int]:
    """Return how many pixels may be held, how wide a strip may be, and how many pixels are decoded at a time."""
    tallest, widest = (int(np.diff(edges).max()) for edges in level.edges)
    wide, tall = (int(side) for side in (high - low).max(axis=0, initial=1))
    rows, chunk, whole = tall + 1 + tallest, tallest * widest, int(np.prod(level.shape))
    least = rows * (wide + widest)
    needed = least + _decoding(chunk)
    allowed = max(DEFAULT_BYTES // 3, needed) if max_bytes is None else max_bytes // 3
    if allowed < needed:
        raise ValueError(
            f"max_bytes={max_bytes} is too little: a patch and the chunks under it, of {tallest} x {widest} pixels, "
            f"take {3 * needed}; allow as much, or rewrite the image in smaller chunks"
        )
    run = max(chunk, min(allowed // RUNS, whole))
    run = run if allowed - _decoding(run) >= least else chunk
    held = allowed - _decoding(run)
    return min(held, whole + wide * tall), held // rows, run


def _decoding(run: int) -> int:
    """Return the pixels that memory must have room for while `run` of them are decoded (measured)."""
    return COPIES * run + min(COPIES * run, KEPT)


def _strips(left: np.ndarray, right: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Split boxes from left to right so that those of a strip span no more than `width`."""
    order, start = np.argsort(left, kind="stable"), 0
    while start < len(order):
        beyond = right[order[start:]] - left[order[start]] > width
        stop = start + int(beyond.argmax()) if beyond.any() else len(order)
        yield order[start:stop]
        start = stop


def _bands(
    level: Any, strip: np.ndarray, low: np.ndarray, high: np.ndarray, held: np.ndarray, run: int
) -> Iterator[Group]:
    """Go down a strip of boxes, keeping in `held` the rows that the next ones share with those before."""
    edges, touched = level.edges, _touched(level.edges, low[strip], high[strip])
    left, right = int(low[strip, 0].min()), int(high[strip, 0].max())
    top, bottom = low[strip, 1], np.maximum.accumulate(high[strip, 1])
    if touched.size == 1 and touched.any():
        pixels = level.read(int(top[0]), int(bottom[-1]), left, right)
        if not pixels.any():
            _refuse_missing(level, 0, 0)
        yield strip, pixels, np.array([left, top[0]])
        return
    tallest = int(np.diff(edges[0]).max())
    whole = int(edges[0][np.searchsorted(edges[0], bottom[-1])] - top[0])
    width = max(right - left, 1)
    room = min(len(held) // width, whole)
    held = held[: room * width].reshape(room, width, 3)[:, : right - left]
    start = 0
    first = done = int(top[0])  # the rows that are held
    while start < len(strip):
        begin = int(top[start])
        stop = int(np.searchsorted(bottom, begin + room - tallest, side="right"))
        stop = len(strip) if room == whole else max(start + 1, stop)
        _move_up(held[: max(done, begin) - first], begin - first)
        first, done = begin, max(done, begin)
        end = int(edges[0][np.searchsorted(edges[0], bottom[stop - 1])])
        _read(level, touched, (done, end), (left, right), held[done - first :], run)
        done = max(done, end)
        yield strip[start:stop], held[: done - first], np.array([left, first])
        start = stop


def _move_up(held: np.ndarray, by: int) -> None:
    """Move rows up over the first ones, as many at a time as do not overlap: numpy would copy them all beside."""
    for start in range(0, len(held) - by, by) if by else ():
        stop = min(start + by, len(held) - by)
        held[start:stop] = held[start + by : stop + by]


def _touched(edges: tuple[np.ndarray, np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell for each chunk, by row and column, whether it lies under a box."""
    some = (high > low).all(axis=1)
    x0, y0 = (
        np.searchsorted(edges[1 - axis], low[some, axis], side="right") - 1 for axis in (0, 1)
    )
    x1, y1 = (np.searchsorted(edges[1 - axis], high[some, axis], side="left") for axis in (0, 1))
    steps = np.zeros((len(edges[0]), len(edges[1])), dtype=int)
    for y, x, step in ((y0, x0, 1), (y1, x1, 1), (y0, x1, -1), (y1, x0, -1)):
        np.add.at(steps, (y, x), step)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0


def _read(
    level: Any,
    touched: np.ndarray,
    rows: tuple[int, int],
    columns: tuple[int, int],
    out: np.ndarray,
    run: int,
) -> None:
    """Fill `out` with what these rows and columns hold of touched chunks, some neighboring chunks at a time."""
    y_edges, x_edges = level.edges
    row, last = (int(np.searchsorted(y_edges, y, side="right")) - 1 for y in rows)
    block = min(BLOCK, run // int(np.diff(x_edges).max()))
    while row < last:
        after = max(row + 1, int(np.searchsorted(y_edges, y_edges[row] + block, side="right")) - 1)
        after = min(after, last)
        top, bottom = max(int(y_edges[row]), rows[0]), int(y_edges[after])
        for begin, end in _runs(
            np.logical_or.reduce(touched[row:after]),
            x_edges,
            run // (y_edges[after] - y_edges[row]),
        ):
            left, right = max(int(x_edges[begin]), columns[0]), min(int(x_edges[end]), columns[1])
            pixels = level.read(top, bottom, left, right)
            borders = (
                y_edges[row : after + 1].clip(top, bottom) - top,
                x_edges[begin : end + 1].clip(left, right) - left,
            )
            _check(level, pixels, borders, touched[row:after, begin:end], (row, begin))
            out[top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]] = pixels
            del pixels  # before the next are decoded
        row = after


def check_chunks(level: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Refuse a level that lacks a chunk under boxes, given by their corners (n, 2) as x, y."""
    limit = np.array(level.shape[::-1])
    for row, column in np.argwhere(
        _touched(level.edges, np.clip(low, 0, limit), np.clip(high, 0, limit))
    ):
        _refuse_missing(level, row, column)


def _check(
    level: Any,
    pixels: np.ndarray,
    borders: tuple[np.ndarray, np.ndarray],
    needed: np.ndarray,
    at: Any,
) -> None:
    """Refuse a needed chunk that is missing, of those from a row and column on; only an empty one is looked up."""
    for row, column in np.argwhere(needed):
        (top, bottom), (left, right) = (
            one[i : i + 2] for one, i in zip(borders, (row, column), strict=True)
        )
        chunk = pixels[top:bottom, left:right]
        if not (chunk[len(chunk) // 2].any() or chunk.any()):
            _refuse_missing(level, at[0] + row, at[1] + column)


def _refuse_missing(level: Any, row: int, column: int) -> None:
    if level.lacks(row, column):
        raise ValueError(
            f"the image has no pixels where spots are: its chunk at x = {level.edges[1][column]}, "
            f"y = {level.edges[0][row]} is missing; write the image again, or leave these spots out if it is black "
            "there, for zarr does not write black chunks"
        )


def _runs(chosen: np.ndarray, edges: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of chosen chunks begin and end, none wider than `width` unless a single chunk is."""
    for begin, stop in np.flatnonzero(np.diff(chosen, prepend=False, append=False)).reshape(-1, 2):
        while begin < stop:
            end = int(np.searchsorted(edges, edges[begin] + width, side="right")) - 1
            end = min(max(end, begin + 1), stop)
            yield begin, end
            begin = end
