"""Pairs of stores with equal or nearly equal counts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stp.data.store import SpotStore
from stp.metrics._twins import SAME, share_with_twin
from stp.tl._store_signatures import (
    FEW_GENES,
    MIN_ENTRIES,
    Signature,
    hash_spots,
    read_blocks,
)

EQUAL_COUNTS = "equal counts"
NEARLY_EQUAL = "nearly equal spots"

MAX_SHARE = 0.01  # of the spots that may have a twin by chance
MIN_SHARED_GENES = 20
# Total counts of serial sections of one patient correlate by up to 0.985, those of a slide and a
# copy with a tenth of its counts left out by 0.999.
MIN_CORRELATION = 0.985
SAMPLED_GENES = 4  # every fourth gene is compared, or all genes of a small panel
N_GENES = 1000  # the most expressed genes, in which twins are searched
N_QUERIES = 256  # spots whose twin is searched


class Duplicate(NamedTuple):
    """What two stores share."""

    kind: str
    share: float
    note: str


def count_candidates(signatures: Sequence[Signature]) -> list[tuple[int, int]]:
    """Return the pairs of stores that may have equal or nearly equal counts, in order."""
    pairs = set(_pairs_with_equal_spots(signatures)) | set(_pairs_alike_in_total(signatures))
    return sorted(pairs)


def compare_counts(first: Signature, second: Signature) -> Duplicate | None:
    """Return what the counts of two stores share, or None."""
    _, columns, other_columns = np.intersect1d(
        first.gene_hashes, second.gene_hashes, assume_unique=True, return_indices=True
    )
    if len(columns) < MIN_SHARED_GENES:
        return None
    return _find_equal_spots(first, second, columns, other_columns) or _find_twins(
        first, second, columns, other_columns
    )


def _pairs_with_equal_spots(signatures: Sequence[Signature]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of stores that have a hash of a spot in common."""
    import scipy.sparse

    sizes = [len(signature.spot_hashes) for signature in signatures]
    stores = np.repeat(np.arange(len(signatures)), sizes)
    hashes = np.concatenate([signature.spot_hashes for signature in signatures])
    _, numbers, n_stores = np.unique(hashes, return_inverse=True, return_counts=True)
    is_shared = n_stores[numbers] > 1
    shape = (len(signatures), len(n_stores))
    entries = (np.ones(is_shared.sum(), np.int32), (stores[is_shared], numbers[is_shared]))
    has_hash = scipy.sparse.csr_matrix(entries, shape=shape)
    common = scipy.sparse.triu(has_hash @ has_hash.T, k=1).tocoo()
    yield from zip(common.row.tolist(), common.col.tolist(), strict=True)


def _pairs_alike_in_total(signatures: Sequence[Signature]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of stores whose total counts correlate on the genes that both have."""
    genes = np.unique(np.concatenate([_sampled_hashes(signature) for signature in signatures]))
    values = np.zeros((len(signatures), len(genes)), np.float32)
    is_measured = np.zeros_like(values)
    for row, signature in enumerate(signatures):
        columns = np.searchsorted(genes, _sampled_hashes(signature))
        umis = signature.gene_umis[_is_sampled(signature)]
        values[row, columns] = np.log1p(umis / max(umis.sum(), 1) * 1e6)
        is_measured[row, columns] = 1
    squares = values**2 @ is_measured.T
    sums = values @ is_measured.T
    n_shared = np.maximum(is_measured @ is_measured.T, 1)
    covariance = values @ values.T - sums * sums.T / n_shared
    variance = squares - sums**2 / n_shared
    scale = np.sqrt(np.maximum(variance * variance.T, 1e-6))
    is_alike = (covariance > MIN_CORRELATION * scale) & (n_shared >= MIN_SHARED_GENES)
    rows, columns = np.nonzero(np.triu(is_alike, k=1))
    yield from zip(rows.tolist(), columns.tolist(), strict=True)


def _is_sampled(signature: Signature) -> np.ndarray:
    if len(signature.gene_hashes) <= FEW_GENES:
        return np.ones(len(signature.gene_hashes), bool)
    return signature.gene_hashes % np.uint64(SAMPLED_GENES) == 0


def _sampled_hashes(signature: Signature) -> np.ndarray:
    return signature.gene_hashes[_is_sampled(signature)]


def _find_equal_spots(
    first: Signature, second: Signature, columns: np.ndarray, other_columns: np.ndarray
) -> Duplicate | None:
    """Return how many spots of the smaller store are in the other, on the genes that both have."""
    spots = []
    for signature, genes in ((first, columns), (second, other_columns)):
        hashes, n_entries = hash_spots(signature.store, signature.gene_hashes, genes)
        spots.append(hashes[n_entries >= MIN_ENTRIES])
    smaller, larger = sorted(spots, key=len)
    if not len(smaller):
        return None
    n_equal = int(np.isin(smaller, larger).sum())
    share = n_equal / len(smaller)
    if share <= MAX_SHARE:
        return None
    genes_text = f"{len(columns):,} shared genes"
    return Duplicate(EQUAL_COUNTS, share, f"{n_equal:,} equal spots on {genes_text}")


def _find_twins(
    first: Signature, second: Signature, columns: np.ndarray, other_columns: np.ndarray
) -> Duplicate | None:
    """Return how many spots of the smaller store have a twin in the other."""
    umis = first.gene_umis[columns] + second.gene_umis[other_columns]
    top = np.argsort(-umis, kind="stable")[:N_GENES]
    smaller = first.store
    its_columns = columns[top]
    larger = second.store
    other_columns = other_columns[top]
    if len(smaller) > len(larger):
        smaller, larger = larger, smaller
        its_columns, other_columns = other_columns, its_columns
    queries = np.concatenate(list(_read_profiles(smaller, its_columns)))
    queries = queries[:: -(-len(queries) // N_QUERIES) or 1]
    share = share_with_twin(queries, _read_profiles(larger, other_columns))
    if share <= MAX_SHARE:
        return None
    return Duplicate(NEARLY_EQUAL, share, f"spots whose expression correlates by r > {SAME}")


def _read_profiles(store: SpotStore, columns: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the counts of spots on some genes (n, n_genes), without spots with few of them."""
    yield np.zeros((0, len(columns)), np.float32)
    for _, block in read_blocks(store):
        counts = block[:, columns]
        is_used = np.diff(counts.indptr) >= MIN_ENTRIES
        yield counts[is_used].toarray()
