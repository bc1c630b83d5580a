"""A sparse matrix that grows by blocks of rows, without a second copy of them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

GROWTH = 1.25  # factor by which arrays grow when they are full


class GrowingRows:
    """Blocks of rows below each other.

    Parameters
    ----------
    n_columns
        Number of columns of each block.
    """

    def __init__(self, n_columns: int) -> None:
        self._n_columns = n_columns
        self._n_values = 0
        self._lengths: list[np.ndarray] = []
        self._data = np.empty(0, np.float32)
        self._indices = np.empty(0, np.int32)

    def add(self, block: "csr_matrix") -> None:
        """Add a block of float32 values below the others."""
        start = self._n_values
        self._n_values += block.nnz
        if self._n_values > len(self._data):
            self._resize(max(self._n_values, int(GROWTH * len(self._data))))
        self._data[start : self._n_values] = block.data
        self._indices[start : self._n_values] = block.indices
        self._lengths.append(np.diff(block.indptr))

    def to_csr(self) -> "csr_matrix":
        """Return the matrix; no block can be added later."""
        from scipy.sparse import csr_matrix

        self._resize(self._n_values)
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        indptr = np.cumsum(lengths, dtype=np.int64)
        shape = (len(indptr) - 1, self._n_columns)
        return csr_matrix((self._data, self._indices, indptr), shape=shape, copy=False)

    def _resize(self, n_values: int) -> None:
        # The system moves large arrays without a copy.
        self._data.resize(n_values, refcheck=False)
        self._indices.resize(n_values, refcheck=False)
