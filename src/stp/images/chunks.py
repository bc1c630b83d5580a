"""The chunks of a level under boxes, and whether they are on disk."""

from typing import NamedTuple

import numpy as np

from stp.images.levels import Level

Edges = tuple[np.ndarray, np.ndarray]  # pixels at which chunks begin or end: along y, along x


class Boxes(NamedTuple):
    """Boxes of whole pixels, which may lie outside the level."""

    low: np.ndarray  # (n, 2) upper left corners as x, y
    high: np.ndarray  # (n, 2) lower right corners as x, y, not included

    def clip(self, level: Level) -> "Boxes":
        """Return the parts of the boxes inside the level."""
        size = np.array(level.shape[::-1])
        return Boxes(np.clip(self.low, 0, size), np.clip(self.high, 0, size))

    def take(self, rows: np.ndarray) -> "Boxes":
        """Return the boxes of these rows."""
        return Boxes(self.low[rows], self.high[rows])


def chunk_spans(edges: Edges, boxes: Boxes) -> np.ndarray:
    """Return the chunks under boxes that lie inside a level.

    Parameters
    ----------
    edges
        Pixels at which chunks begin, and at which the last one ends.
    boxes
        Boxes in pixels.

    Returns
    -------
    (n, 4): the first row of chunks, the row after the last, and the columns likewise.
    """
    y_edges, x_edges = edges
    return np.stack(
        [
            np.searchsorted(y_edges, boxes.low[:, 1], side="right") - 1,
            np.searchsorted(y_edges, boxes.high[:, 1], side="left"),
            np.searchsorted(x_edges, boxes.low[:, 0], side="right") - 1,
            np.searchsorted(x_edges, boxes.high[:, 0], side="left"),
        ],
        axis=1,
    )


def count_boxes(spans: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return for each chunk, by row and column, how many boxes lie over it."""
    has_chunks = (spans[:, 1] > spans[:, 0]) & (spans[:, 3] > spans[:, 2])
    y0, y1, x0, x1 = spans[has_chunks].T
    # Each box adds 1 at two corners and -1 at the others; the sums count the boxes over a chunk.
    steps = np.zeros((shape[0] + 1, shape[1] + 1), dtype=int)
    np.add.at(steps, (y0, x0), 1)
    np.add.at(steps, (y1, x1), 1)
    np.add.at(steps, (y0, x1), -1)
    np.add.at(steps, (y1, x0), -1)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]


def require_chunks(level: Level, boxes: Boxes) -> None:
    """Raise ValueError if a chunk under a box is missing in the level."""
    y_edges, x_edges = level.edges
    spans = chunk_spans(level.edges, boxes.clip(level))
    for row, column in np.argwhere(count_boxes(spans, (len(y_edges) - 1, len(x_edges) - 1))):
        require_chunk(level, row, column)


def require_chunk(level: Level, row: int, column: int) -> None:
    """Raise ValueError if the chunk in this row and column is missing."""
    if level.is_missing(row, column):
        y_edges, x_edges = level.edges
        raise ValueError(
            f"the image has no pixels where spots are: its chunk at x = {x_edges[column]}, "
            f"y = {y_edges[row]} is missing; write the image again, or leave these spots out if "
            "it is black there, for zarr does not write black chunks"
        )
