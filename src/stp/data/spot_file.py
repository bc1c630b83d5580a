"""Arrays of all spots of some stores, computed once into a file that every process maps and none holds."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._counts import BLOCK_ROWS
from stp._ranks import rank_table
from stp.data.store import SpotStore
from stp.pathways import membership, set_scores
from stp.tokens import rank_genes
from stp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


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

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: type = np.uint16) -> None:
        self.path, self.width, self.dtype = path, width, dtype
        self.edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __getitem__(self, store: int) -> np.ndarray:
        return self.all[self.edges[store] : self.edges[store + 1]]

    def __getstate__(self) -> dict:
        # What was mapped would travel as a copy.
        return {name: value for name, value in self.__dict__.items() if name != "all"}

    @cached_property
    def all(self) -> np.ndarray:
        """The rows of all stores; what is written to them stays in this process."""
        return self._map("c")

    def create(self) -> None:
        """Make the file, of zeros."""
        self.path.touch()
        self._map("w+")

    def to_fill(self) -> np.ndarray:
        """The rows of all stores; what is written to them is in the file."""
        return self._map("r+")

    def _map(self, mode: str) -> np.ndarray:
        shape = (int(self.edges[-1]), self.width)
        return np.memmap(self.path, self.dtype, mode, shape=shape) if shape[0] else np.zeros(shape, self.dtype)


def rank_stores(
    stores: Sequence[SpotStore], vocabulary: Vocabulary, file: SpotFile, *, rank: int = 0, size: int = 1
) -> None:
    """Rank all spots of some stores into tokens, padded with 0, block by block in constant memory.

    Of `size` processes that fill the same file, each ranks the stores `rank`, `rank + size`, and so on.

    Raises
    ------
    ValueError
        A store is damaged.
    """
    table, how = rank_table(vocabulary.divisors()), {"context_length": file.width, "n_special": vocabulary.n_special}
    for index, counts, out in _blocks(stores, vocabulary, file, rank, size):
        rank_genes(counts, index, table, out=out, **how)


def score_stores(
    stores: Sequence[SpotStore],
    vocabulary: Vocabulary,
    sets: Sequence[np.ndarray],
    file: SpotFile,
    *,
    rank: int = 0,
    size: int = 1,
) -> None:
    """Score gene sets in all spots of some stores, as `rank_stores` ranks genes; NaN where none is measured."""
    for index, counts, out in _blocks(stores, vocabulary, file, rank, size):
        out[:] = set_scores(counts, index, membership(index, sets))


def _blocks(
    stores: Sequence[SpotStore], vocabulary: Vocabulary, file: SpotFile, rank: int, size: int
) -> Iterator[tuple[np.ndarray, "csr_matrix", np.ndarray]]:
    """Yield the vocabulary index of columns, counts of a block of spots, and where in the file they belong."""
    values = file.to_fill()
    indices: dict[tuple[str, ...], np.ndarray] = {}  # most stores have the genes of one before
    for store, start in list(zip(stores, file.edges[:-1], strict=True))[rank::size]:
        names = tuple(store.gene_names)
        if names not in indices:
            indices[names] = vocabulary.encode(names)
        for first, counts in store.counts(BLOCK_ROWS):
            yield indices[names], counts, values[start + first : start + first + counts.shape[0]]
