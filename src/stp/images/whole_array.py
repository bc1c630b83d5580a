"""Dask arrays of one chunk, such as a TIFF that is not divided into tiles."""

import threading
from typing import Any

import numpy as np


class WholeArray:
    """A Dask array that can only be computed as a whole; its pixels are kept after the first read.

    A window would otherwise decode the whole image each time. A copy for another process computes
    the pixels again.

    Parameters
    ----------
    array
        Dask array of one chunk.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim
        self.chunks = array.chunks
        self._pixels: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getitem__(self, key: Any) -> np.ndarray:
        with self._lock:
            if self._pixels is None:
                self._pixels = np.asarray(self.array)
        return self._pixels[key]

    def __reduce__(self) -> tuple[type["WholeArray"], tuple[Any]]:
        return WholeArray, (self.array,)


def keep_whole(array: Any) -> Any:
    """Return an array that is computed once if it is a Dask array of one chunk, else itself."""
    is_whole = hasattr(array, "dask") and all(n == 1 for n in array.numblocks[-2:])
    return WholeArray(array) if is_whole else array
