"""Hashes of counts are equal for equal counts alone."""

import numpy as np
import scipy.sparse

from stp.metrics._row_hashes import hash_names, hash_rows

NAMES = [f"gene{number}" for number in range(40)]


def hashes_of(counts, names=NAMES):
    return hash_rows(scipy.sparse.csr_matrix(np.asarray(counts, np.float32)), hash_names(names))


def test_rows_have_one_hash_if_and_only_if_their_counts_are_equal():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2, (300, 8))
    hashes = hashes_of(counts, NAMES[:8])
    for first in range(0, 300, 7):
        is_equal = [(counts[first] == row).all() for row in counts]
        assert ((hashes == hashes[first]) == is_equal).all()


def test_order_and_genes_without_counts_make_no_difference():
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.7, (50, 40))
    counts[:, 30:] = 0
    order = rng.permutation(30)
    renamed = [NAMES[number] for number in order]
    assert (hashes_of(counts[:, order], renamed) == hashes_of(counts)).all()
    assert (hashes_of(counts) != 0).all()


def test_exchanged_counts_and_names_have_other_hashes():
    pairs = hashes_of([[1, 2, 0], [2, 1, 0], [0, 1, 2], [1, 0, 2], [3, 0, 0], [0, 0, 0]], NAMES[:3])
    assert len(set(pairs.tolist())) == 6
    assert pairs[-1] == 0
