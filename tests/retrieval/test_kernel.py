"""The worked examples in the comments of the kernels."""

import numpy as np

from stp.retrieval.kernel import add_profiles, keep_best, to_unit_length


def test_vectors_become_unit_vectors_or_nan():
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1]], np.float32)
    unit = np.empty_like(vectors)
    usable = np.empty(3, bool)
    to_unit_length(vectors, unit, usable)
    np.testing.assert_allclose(unit, [[0.6, 0.8], [np.nan, np.nan], [np.nan, np.nan]], rtol=1e-6)
    assert usable.tolist() == [True, False, False]


def test_the_best_references_of_a_block_enter_the_list():
    query = np.array([[1, 0]], np.float32)
    cosines = np.array([0.3, 0.7, 0.9], np.float32)
    block = np.column_stack([cosines, np.sqrt(1 - cosines**2)])
    index = np.array([[4, 2]])
    similarity = np.array([[np.float64(cosines[2]), 0.5]])
    keep_best(query @ block.T, 0.01, query, block, 10, index, similarity)
    assert index.tolist() == [[4, 12]]
    assert similarity.tolist() == [[cosines[2], cosines[2]]]


def test_profiles_are_added_to_mean_and_squares():
    total = np.zeros(1)
    mean = np.zeros((1, 1), np.float32)
    squares = np.zeros((1, 1), np.float32)
    profiles = np.array([[2], [6]], np.float32)
    weight = np.array([0.25, 0.75])
    add_profiles(profiles, np.array([0, 1]), weight, np.array([0, 2]), total, mean, squares)
    assert (total.item(), mean.item(), squares.item()) == (1, 5, 3)
