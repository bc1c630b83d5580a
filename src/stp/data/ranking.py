"""Rank the genes, or score the gene sets, of the spots of many stores into one file."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.genes.pathways import membership, set_scores
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes
from stp.genes.vocabulary import Vocabulary
from stp.tables.counts import BLOCK_ROWS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def rank_stores(
    stores: Sequence[SpotStore],
    vocabulary: Vocabulary,
    file: SpotFile,
    *,
    rank: int = 0,
    size: int = 1,
) -> None:
    """Rank all spots of some stores into tokens, padded with 0, block by block in constant memory.

    Of `size` processes that fill the same file, each ranks the stores `rank`, `rank + size`, and so on.

    Raises
    ------
    ValueError
        A store is damaged.
    """
    table, how = (
        rank_table(vocabulary.divisors()),
        {"context_length": file.width, "n_special": vocabulary.n_special},
    )
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
    values = file.writable()
    indices: dict[str, np.ndarray] = {}  # by the genes of a store: most have those of one before
    for store, start in list(zip(stores, file.offsets[:-1], strict=True))[rank::size]:
        genes = store.genes
        if genes not in indices:
            indices[genes] = vocabulary.encode(store.gene_names)
        for first, counts in store.counts(BLOCK_ROWS):
            yield indices[genes], counts, values[start + first : start + first + counts.shape[0]]
