"""Cut patches with a cache of decoded chunks: a peer of the window reader of `ImagePyramid`."""

from collections.abc import Iterator

import numpy as np

from stp.images import ImagePyramid


class ChunkReader:
    """Read windows of the finest level of an image, chunk by chunk.

    Parameters
    ----------
    pyramid
        The image.
    cache_bytes
        Decoded chunks that are kept, in bytes; the least recently used one goes first.
    """

    def __init__(self, pyramid: ImagePyramid, cache_bytes: int) -> None:
        import cachetools  # a peer, which stp does not need

        self.level = pyramid.levels[0]
        self.y_edges, self.x_edges = self.level.edges
        self.cache = cachetools.LRUCache(cache_bytes, getsizeof=lambda chunk: chunk.nbytes)

    def chunk(self, row: int, column: int) -> np.ndarray:
        """Return the pixels of a chunk (y, x, 3), decoded or from the cache."""
        key = row, column
        if key not in self.cache:
            top, bottom = self.y_edges[row : row + 2]
            left, right = self.x_edges[column : column + 2]
            pixels = self.level.read(int(top), int(bottom), int(left), int(right))
            self.cache[key] = np.ascontiguousarray(pixels)
        return self.cache[key]

    def read(self, top: int, left: int, out: np.ndarray) -> None:
        """Copy the window with this corner, which lies inside the level, into `out` (y, x, 3)."""
        bottom = top + out.shape[0]
        right = left + out.shape[1]
        for row in _touched(self.y_edges, top, bottom):
            for column in _touched(self.x_edges, left, right):
                pixels = self.chunk(row, column)
                y = int(self.y_edges[row])
                x = int(self.x_edges[column])
                y0, y1 = max(top, y), min(bottom, y + pixels.shape[0])
                x0, x1 = max(left, x), min(right, x + pixels.shape[1])
                part = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
                out[y0 - top : y1 - top, x0 - left : x1 - left] = part


def stream_patches(
    pyramid: ImagePyramid, corners: np.ndarray, size: int, *, batch_size: int, cache_bytes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of `corners` and their patches, in the order of rows of chunks.

    Parameters
    ----------
    pyramid
        The image, of whose finest level patches are plain slices.
    corners
        Upper left corners of the patches (n, 2) as x, y, in whole pixels.
    size
        Side of a patch in pixels.
    batch_size
        Number of patches that are yielded together.
    cache_bytes
        Decoded chunks that are kept, in bytes.
    """
    reader = ChunkReader(pyramid, cache_bytes)
    chunk_row = np.searchsorted(reader.y_edges, corners[:, 1], side="right")
    order = np.lexsort((corners[:, 0], chunk_row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        patches = np.empty((len(rows), size, size, 3), np.uint8)
        for patch, (left, top) in zip(patches, corners[rows], strict=True):
            reader.read(int(top), int(left), patch)
        yield rows, patches


def _touched(edges: np.ndarray, low: int, high: int) -> range:
    """Return the chunks under an interval of pixels."""
    first = int(np.searchsorted(edges, low, side="right")) - 1
    return range(first, int(np.searchsorted(edges, high, side="left")))
