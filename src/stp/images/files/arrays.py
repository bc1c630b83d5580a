"""Arrays in files, which each process opens for itself."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class FileArray:
    """An array in a file that each process opens for itself; it pickles as path and shape."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]  # what is decoded as a whole
    opened: tuple[int, Any] | None = field(default=None, repr=False)  # by process id

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def _open(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> np.ndarray:
        # A forked process shares the position in a file that its parent opened, and would read
        # from the wrong place.
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = (os.getpid(), self._open())
        return np.asarray(self.opened[1][key])
