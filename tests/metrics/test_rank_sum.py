"""Rank sums of sparse columns equal SciPy's, in any blocks, and slides are strata."""

import numpy as np
import pytest
import scipy.sparse
from scipy.stats import mannwhitneyu, norm

from stp.metrics._rank_sum import RankSums


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.7, (40, 15)) * rng.integers(1, 3, (40, 15)).astype(np.float32)
    dense[:, 3] = 0
    dense[:, 4] = 2
    dense[:, 5] = rng.uniform(1, 2, 40)  # no zeros and no ties
    return dense


def rank_sums(dense, is_hit, **options):
    sums = RankSums(dense.shape[1])
    sums.add(scipy.sparse.csc_matrix(dense), is_hit, **options)
    return sums


def test_one_slide_is_the_test_of_scipy(values):
    is_hit = np.arange(40) % 5 == 1
    sums = rank_sums(values, is_hit)
    for column in range(15):
        if column in (3, 4):  # they do not vary
            assert np.isnan(sums.z[column]) and sums.auroc[column] == 0.5
            continue
        hits, rest = values[is_hit, column], values[~is_hit, column]
        test = mannwhitneyu(hits, rest, use_continuity=False, method="asymptotic")
        assert sums.auroc[column] == pytest.approx(test.statistic / (8 * 32))
        assert 2 * norm.sf(abs(sums.z[column])) == pytest.approx(test.pvalue)
        if sums.auroc[column] != 0.5:
            assert np.sign(sums.z[column]) == np.sign(sums.auroc[column] - 0.5)


@pytest.mark.parametrize("block_values", [1, 7, 100])
def test_blocks_of_columns_change_nothing(values, block_values):
    is_hit = np.arange(40) < 11
    np.testing.assert_array_equal(
        rank_sums(values, is_hit, block_values=block_values).z, rank_sums(values, is_hit).z
    )


def test_a_shift_between_slides_changes_nothing(values):
    sums = []
    for shift in (0, 100):
        both = RankSums(15)
        is_hit = np.arange(40) < 11
        both.add(scipy.sparse.csc_matrix(values + 1), is_hit)
        both.add(scipy.sparse.csc_matrix(values[::-1] + 1 + shift), is_hit[::-1])
        sums.append(both)
    np.testing.assert_array_equal(sums[0].z, sums[1].z)
    one = rank_sums(values, np.arange(40) < 11)
    np.testing.assert_allclose(sums[0].z, one.z * np.sqrt(2))
    np.testing.assert_allclose(sums[0].auroc, one.auroc)


def test_slides_without_hits_or_without_others_are_passed_over(values):
    sums = rank_sums(values, np.arange(40) < 11)
    z = sums.z.copy()
    for is_hit in (np.zeros(40, bool), np.ones(40, bool)):
        sums.add(scipy.sparse.csc_matrix(values), is_hit)
    np.testing.assert_array_equal(sums.z, z)
    assert sums.n_pairs == 11 * 29
