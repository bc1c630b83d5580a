"""Signatures of stores: little numbers by which copies among many stores are found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._progress import track
from stp.data.store import SpotStore
from stp.images.keypoints import Keypoints, find_keypoints
from stp.metrics._row_hashes import hash_names, hash_rows
from stp.tables.counts import BLOCK_ROWS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MIN_ENTRIES = 12  # counts of a spot, so that no two spots are equal by chance
# The counts of a spot are hashed on groups of genes: a large one for shallow spots, and small ones,
# of which some stay whole if rare genes were left out. The share of the hashes that are kept is
# such that a signature has about one number per spot.
LARGE_GROUPS = 4
SMALL_GROUPS = 64
N_SMALL = 4  # small groups that are used
FEW_GENES = 2000  # a panel of so few genes is hashed as a whole, too
KEEP_LARGE = 2  # every second hash
KEEP_SMALL = 8


@dataclass(frozen=True, eq=False)
class Signature:
    """What is known about a store while it is compared with all others.

    Parameters
    ----------
    store
        The store.
    gene_hashes
        Hash of each gene name (n_genes,) uint64.
    gene_umis
        UMIs of each gene over all spots (n_genes,).
    spot_hashes
        Hashes (n_hashes,) uint64 of the counts of spots on groups of genes.
    keypoints
        Points of the image; None for a store without.
    """

    store: SpotStore
    gene_hashes: np.ndarray
    gene_umis: np.ndarray
    spot_hashes: np.ndarray
    keypoints: Keypoints | None


def sign_stores(stores: Sequence[SpotStore]) -> list[Signature]:
    """Return the signature of each store; every store is read once."""
    gene_hashes: dict[str, np.ndarray] = {}  # by digest of gene names, which most stores share
    signatures = []
    for store in track(stores, "read stores", "store"):
        if store.genes not in gene_hashes:
            gene_hashes[store.genes] = hash_names(store.gene_names)
        signatures.append(_sign_store(store, gene_hashes[store.genes]))
    return signatures


def hash_spots(
    store: SpotStore, gene_hashes: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of the counts of each spot on some genes, and the number of these counts.

    Parameters
    ----------
    store
        The store.
    gene_hashes
        Hash of each gene name (n_genes,).
    columns
        Positions (n,) of the genes.
    """
    hashes = np.zeros(len(store), np.uint64)
    n_entries = np.zeros(len(store), int)
    for rows, block in read_blocks(store):
        counts = block[:, columns]
        hashes[rows] = hash_rows(counts, gene_hashes[columns])
        n_entries[rows] = np.diff(counts.indptr)
    return hashes, n_entries


def read_blocks(store: SpotStore) -> "Iterator[tuple[slice, csr_matrix]]":
    """Yield the rows and the counts of blocks of spots."""
    for start, block in store.counts(BLOCK_ROWS):
        yield slice(start, start + block.shape[0]), block


def _sign_store(store: SpotStore, gene_hashes: np.ndarray) -> Signature:
    groups = list(_gene_groups(gene_hashes))
    umis = np.zeros(len(gene_hashes))
    hashes = []
    for _, block in read_blocks(store):
        umis += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
        for columns, keep in groups:
            counts = block[:, columns]
            of_group = hash_rows(counts, gene_hashes[columns])
            is_used = (np.diff(counts.indptr) >= MIN_ENTRIES) & (of_group % np.uint64(keep) == 0)
            hashes.append(of_group[is_used])
    return Signature(
        store=store,
        gene_hashes=gene_hashes,
        gene_umis=umis,
        spot_hashes=np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64),
        keypoints=None if store.pyramid is None else find_keypoints(store.pyramid),
    )


def _gene_groups(gene_hashes: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the positions of the genes of each group, and which share of its hashes is kept."""
    if len(gene_hashes) <= FEW_GENES:
        yield np.arange(len(gene_hashes)), 1
    yield np.flatnonzero(gene_hashes % np.uint64(LARGE_GROUPS) == 0), KEEP_LARGE
    small = gene_hashes // np.uint64(LARGE_GROUPS) % np.uint64(SMALL_GROUPS)
    for number in range(N_SMALL):
        yield np.flatnonzero(small == number), KEEP_SMALL
