"""The tokens of all spots of some stores, ranked once into a file that every process maps and none holds."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from stp._counts import BLOCK_ROWS
from stp._ranks import rank_table
from stp._replace import replace
from stp.data.store import SpotStore
from stp.tokens import rank_genes
from stp.vocabulary import Vocabulary


class TokenFile:
    """Tokens of many stores, (n_spots, context_length) uint16 padded with 0, on disk; `file[store]` are those of one.

    Parameters
    ----------
    path
        The file.
    lengths
        Spots of each store.
    context_length
        Tokens of each spot.
    """

    def __init__(self, path: Path, lengths: Sequence[int], context_length: int) -> None:
        self.path, self.context_length = path, context_length
        self.edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __getitem__(self, store: int) -> np.ndarray:
        return self.all[self.edges[store] : self.edges[store + 1]]

    def __getstate__(self) -> dict:
        # What was mapped would travel as a copy.
        return {name: value for name, value in self.__dict__.items() if name != "all"}

    @cached_property
    def all(self) -> np.ndarray:
        """Tokens of all spots of all stores; what is written to them stays in this process."""
        return self._map(self.path, "c")

    def _map(self, path: Path, mode: str) -> np.ndarray:
        shape = (int(self.edges[-1]), self.context_length)
        return np.memmap(path, np.uint16, mode, shape=shape) if shape[0] else np.zeros(shape, np.uint16)


def rank_stores(stores: Sequence[SpotStore], vocabulary: Vocabulary, file: TokenFile) -> None:
    """Rank all spots of some stores into a file, block by block, in constant memory.

    Raises
    ------
    ValueError
        A store is damaged.
    """

    def write(path: Path) -> None:
        path.touch()
        table, tokens = rank_table(vocabulary.divisors()), file._map(path, "w+")
        indices: dict[tuple[str, ...], np.ndarray] = {}  # most stores have the genes of one before
        for store, start in zip(stores, file.edges[:-1], strict=True):
            names = tuple(store.gene_names)
            if names not in indices:
                indices[names] = vocabulary.encode(names)
            for first, counts in store.counts(BLOCK_ROWS):
                out = tokens[start + first : start + first + counts.shape[0]]
                how = {"context_length": file.context_length, "n_special": vocabulary.n_special, "out": out}
                rank_genes(counts, indices[names], table, **how)

    replace(file.path, write)
