"""The chunks of a level under boxes, and whether they are on disk."""

from typing import NamedTuple

import numpy as np

from stp.images.levels import Level


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


def chunks_under(level: Level, boxes: Boxes) -> np.ndarray:
    """Return for each chunk, by row and column, whether it lies under a box."""
    y_edges, x_edges = level.edges
    has_pixels = np.logical_and.reduce(boxes.high > boxes.low, axis=1)
    boxes = boxes.take(has_pixels)
    x0 = np.searchsorted(x_edges, boxes.low[:, 0], side="right") - 1
    y0 = np.searchsorted(y_edges, boxes.low[:, 1], side="right") - 1
    x1 = np.searchsorted(x_edges, boxes.high[:, 0], side="left")
    y1 = np.searchsorted(y_edges, boxes.high[:, 1], side="left")
    # Each box adds 1 at two corners and -1 at the others; the sums count the boxes over a chunk.
    steps = np.zeros((len(y_edges), len(x_edges)), dtype=int)
    np.add.at(steps, (y0, x0), 1)
    np.add.at(steps, (y1, x1), 1)
    np.add.at(steps, (y0, x1), -1)
    np.add.at(steps, (y1, x0), -1)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0


def require_chunks(level: Level, boxes: Boxes) -> None:
    """Raise ValueError if a chunk under a box is missing in the level."""
    for row, column in np.argwhere(chunks_under(level, boxes.clip(level))):
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
