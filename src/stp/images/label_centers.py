"""Centers of labels, such as cells or bins of a segmentation, read block by block."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np

BLOCK_PIXELS = 4096  # side of the blocks of an array that is not divided


def label_centers(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all labels (n,) and their centers (n, 2) as x, y in pixels.

    The center is the mean of the centers of the pixels: that of the first pixel is (0.5, 0.5).
    One block is in memory at a time.

    Parameters
    ----------
    labels
        Array (height, width) of whole numbers in NumPy, or in Dask, whose chunks are the blocks. 0
        is no label.
    """
    import pandas as pd

    sums: dict[int, np.ndarray] = {}  # of each id: number of pixels, sum of x, sum of y
    for top, left, block in _blocks(labels):
        codes, ids = pd.factorize(block.ravel())
        positions = codes.reshape(block.shape)
        rows = np.arange(block.shape[0])[:, None] + (top + 0.5)
        columns = np.arange(block.shape[1])[None] + (left + 0.5)
        block_sums = np.stack(
            [
                np.bincount(positions.ravel(), minlength=len(ids)),
                _sum_by(positions, columns, len(ids)),
                _sum_by(positions, rows, len(ids)),
            ],
            axis=1,
        )
        for label, values in zip(ids.tolist(), block_sums, strict=True):
            sums[label] = sums[label] + values if label in sums else values
    sums.pop(0, None)
    ids = np.array(sorted(sums), dtype=np.int64)
    if not len(ids):
        return ids, np.empty((0, 2))
    totals = np.stack([sums[label] for label in ids.tolist()])
    return ids, totals[:, 1:] / totals[:, :1]


def _sum_by(positions: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Return the sum of values, which are broadcast, at each position (n,)."""
    weights = np.broadcast_to(values, positions.shape).ravel()
    return np.bincount(positions.ravel(), weights=weights, minlength=n)


def _blocks(labels: Any) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the first row and column of each block, and the block."""
    chunks = getattr(labels, "chunks", None)
    if chunks is None:
        edges = [list(range(0, size, BLOCK_PIXELS)) + [size] for size in labels.shape]
    else:
        edges = [np.cumsum([0, *sizes]).tolist() for sizes in chunks]
    for (top, bottom), (left, right) in product(*map(list, map(pairwise, edges))):
        block = labels[top:bottom, left:right]
        yield top, left, np.asarray(block.compute() if hasattr(block, "compute") else block)
