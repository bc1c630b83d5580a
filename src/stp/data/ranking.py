"""Rank the genes, or score the gene sets, of all spots of many stores into one file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._progress import Progress
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
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Rank the genes of all spots into tokens, padded with 0.

    Parameters
    ----------
    stores
        Stores of the spots.
    vocabulary
        Vocabulary with gene means, made by `Vocabulary.fit`.
    file
        File for the tokens; its width is the context length.
    rank
        Number of this process among those that fill the file.
    size
        Number of processes. Each ranks the stores `rank`, `rank + size` and so on.
    block_rows
        Number of spots that are in memory at a time.

    Raises
    ------
    ValueError
        A store is damaged.
    """
    table = rank_table(vocabulary.divisors())
    own = range(rank, len(stores), size)
    blocks = _blocks(stores, own, vocabulary, file, block_rows)
    for block in _show_progress(blocks, stores, own, "rank genes"):
        rank_genes(
            block.counts,
            block.index,
            table,
            context_length=file.width,
            n_special=vocabulary.n_special,
            out=block.out,
        )


def score_stores(
    stores: Sequence[SpotStore],
    vocabulary: Vocabulary,
    sets: Sequence[np.ndarray],
    file: SpotFile,
    *,
    rank: int = 0,
    size: int = 1,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Score gene sets in all spots, as `rank_stores` ranks genes.

    `sets` are vocabulary indices of genes. The score of a set is NaN if no gene of it is measured.
    """
    own = range(rank, len(stores), size)
    blocks = _blocks(stores, own, vocabulary, file, block_rows)
    for block in _show_progress(blocks, stores, own, "score gene sets"):
        block.out[:] = set_scores(block.counts, block.index, membership(block.index, sets))


@dataclass(frozen=True)
class Block:
    """Some spots of one store."""

    index: np.ndarray  # (n_columns,) vocabulary index of each gene, or -1
    counts: "csr_matrix"  # (n, n_columns)
    out: np.ndarray  # (n, width), the rows of these spots in the file


def _blocks(
    stores: Sequence[SpotStore],
    numbers: Sequence[int],
    vocabulary: Vocabulary,
    file: SpotFile,
    block_rows: int,
) -> Iterator[Block]:
    """Yield the spots of the stores with these numbers, block by block."""
    values = file.writable()
    indices: dict[str, np.ndarray] = {}  # by digest of gene names, which most stores share
    for number in numbers:
        store = stores[number]
        genes = store.genes
        if genes not in indices:
            indices[genes] = vocabulary.encode(store.gene_names)
        for first, counts in store.counts(block_rows):
            start = file.offsets[number] + first
            yield Block(indices[genes], counts, values[start : start + counts.shape[0]])


def _show_progress(
    blocks: Iterator[Block], stores: Sequence[SpotStore], numbers: range, title: str
) -> Iterator[Block]:
    """Yield the blocks of the stores with these numbers; the first process shows its spots."""
    n_spots = sum(len(stores[number]) for number in numbers)
    with Progress(n_spots, title, "spot", is_shown=numbers.start == 0) as progress:
        for block in blocks:
            yield block
            progress.update(block.counts.shape[0])
