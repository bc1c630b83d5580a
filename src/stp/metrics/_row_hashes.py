"""Numbers that tell whether spots have the same counts, in any order of genes and spots."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The constants of SplitMix64 (Steele et al. 2014), which spreads close numbers over all 64 bits.
INCREMENT = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


def hash_names(names: Iterable[str]) -> np.ndarray:
    """Return a hash of each name, (n_names,) uint64."""
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def hash_rows(counts: "csr_matrix", gene_hashes: np.ndarray) -> np.ndarray:
    """Return a hash of the counts of each row, (n,) uint64; a row without counts has 0.

    Two rows have one hash if they have the same counts of the same genes. The order of the genes,
    and genes without counts, make no difference.

    Parameters
    ----------
    counts
        Counts (n, n_genes), without stored zeros.
    gene_hashes
        Hash of each gene name (n_genes,), as of `hash_names`.
    """
    values = np.ascontiguousarray(counts.data, np.float32).view(np.uint32).astype(np.uint64)
    entries = _mix(gene_hashes[counts.indices] + values * INCREMENT)
    # Sums wrap around, so that the difference of two running sums is exact.
    sums = np.zeros(len(entries) + 1, np.uint64)
    np.cumsum(entries, out=sums[1:])
    return sums[counts.indptr[1:]] - sums[counts.indptr[:-1]]


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * SECOND_FACTOR
    return values ^ (values >> np.uint64(31))
