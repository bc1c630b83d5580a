"""Arrays of all spots of many stores, in a file that all processes map into memory."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np


class SpotFile:
    """An array (n_spots, width) of many stores in a file; `file[store]` is the part of one store.

    Parameters
    ----------
    path
        Path of the file, in NumPy's format.
    lengths
        Number of spots of each store.
    width
        Number of values per spot.
    dtype
        Type of the values.
    """

    def __init__(
        self, path: Path, lengths: Sequence[int], width: int, dtype: type = np.uint16
    ) -> None:
        self.path = path
        self.width = width
        self.dtype = dtype
        self.offsets = np.cumsum([0, *lengths])

    def __getitem__(self, store: int) -> np.ndarray:
        return self.array[self.offsets[store] : self.offsets[store + 1]]

    def __getstate__(self) -> dict:
        # The mapped array would be copied to each worker.
        return {name: value for name, value in self.__dict__.items() if name != "array"}

    def create(self) -> None:
        """Create the file, filled with zeros."""
        shape = (int(self.offsets[-1]), self.width)
        np.lib.format.open_memmap(self.path, "w+", self.dtype, shape)

    @cached_property
    def array(self) -> np.ndarray:
        """The values of all stores; changes are not written to the file."""
        return np.load(self.path, mmap_mode="c")

    def writable(self) -> np.ndarray:
        """Return the values of all stores; changes are written to the file."""
        return np.load(self.path, mmap_mode="r+")
