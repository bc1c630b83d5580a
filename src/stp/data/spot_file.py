"""Arrays of all spots of some stores, computed once into a file that every process maps and none holds."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np


class SpotFile:
    """An array (n_spots, width) of many stores on disk; `file[store]` are the rows of one.

    Parameters
    ----------
    path
        The file.
    lengths
        Spots of each store.
    width, dtype
        Values of each spot.
    """

    def __init__(
        self, path: Path, lengths: Sequence[int], width: int, dtype: type = np.uint16
    ) -> None:
        self.path, self.width, self.dtype = path, width, dtype
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __getitem__(self, store: int) -> np.ndarray:
        return self.array[self.offsets[store] : self.offsets[store + 1]]

    def __getstate__(self) -> dict:
        # What was mapped would travel as a copy.
        return {name: value for name, value in self.__dict__.items() if name != "array"}

    @cached_property
    def array(self) -> np.ndarray:
        """The rows of all stores; what is written to them stays in this process."""
        return self._map("c")

    def create(self) -> None:
        """Make the file, of zeros."""
        self.path.touch()
        self._map("w+")

    def writable(self) -> np.ndarray:
        """The rows of all stores; what is written to them is in the file."""
        return self._map("r+")

    def _map(self, mode: Literal["c", "w+", "r+"]) -> np.ndarray:
        shape = (int(self.offsets[-1]), self.width)
        return (
            np.memmap(self.path, self.dtype, mode, shape=shape)
            if shape[0]
            else np.zeros(shape, self.dtype)
        )
