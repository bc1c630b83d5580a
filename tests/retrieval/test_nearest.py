import numpy as np
import pytest

from stp.retrieval.nearest import WeightedMeans, nearest, weights


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_by_hand():
    references = np.array([[0, 1], [1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    neighbors = nearest(np.array([[1, 0], [0, 1]], np.float32), references, 3)
    assert neighbors.index.tolist() == [[1, 2, 0], [0, 2, 1]]
    np.testing.assert_allclose(neighbors.similarity, [[1, 0.6, 0], [1, 0.8, 0]], rtol=1e-6)


def test_ties_go_to_the_lower_index():
    references = unit(3, 4)[np.arange(300) % 3]  # many: a sort that is not stable shows
    neighbors = nearest(references[:2], references, 150).index
    assert neighbors[:, :100].tolist() == [list(range(0, 300, 3)), list(range(1, 300, 3))]
    assert (np.diff(neighbors[:, 100:]) == 3).all()


def test_blocks_do_not_change_the_neighbors():
    queries, references = unit(50, 8), unit(40, 8, seed=1)
    whole = nearest(queries, references, 7)
    scores = queries @ references.T
    np.testing.assert_array_equal(whole.index, np.argsort(-scores, axis=1)[:, :7])
    blocks = nearest(queries, references, 7, query_rows=7, reference_rows=9)
    np.testing.assert_array_equal(blocks.index, whole.index)
    np.testing.assert_allclose(blocks.similarity, whole.similarity, rtol=1e-6)
    assert (np.diff(whole.similarity) <= 0).all()


@pytest.mark.parametrize("k", [0, 6])
def test_k_must_be_possible(k):
    with pytest.raises(
        ValueError, match=f"cannot retrieve {k} neighbors from 5 references; lower n_neighbors"
    ):
        nearest(unit(3, 4), unit(5, 4), k)
    assert nearest(unit(3, 4), unit(5, 4), 5).index.shape == (3, 5)


def test_weights_by_hand():
    weight, uniform = weights(
        np.array([[0.6, 0.2, 0.2], [0.5, 0, -0.5], [0, -0.1, -0.9], [0, 0, 0]], np.float32)
    )
    np.testing.assert_allclose(
        weight, [[0.6, 0.2, 0.2], [1, 0, 0], [1 / 3] * 3, [1 / 3] * 3], rtol=1e-6
    )
    assert uniform.tolist() == [False, False, True, True]


def test_weights_sum_to_one():
    weight, _ = weights(np.random.default_rng(0).uniform(-1, 1, (100, 7)).astype(np.float32))
    np.testing.assert_allclose(weight.sum(axis=1), 1)
    assert weight.min() == 0


def test_equal_vectors_tie_wherever_blocks_end():
    """A matrix product rounds the same dot product differently at the edge of a block."""
    vectors = unit(5, 512, seed=3)
    neighbors = nearest(vectors, vectors[np.arange(1001) % 5], 200, reference_rows=37)
    for query in range(5):
        assert neighbors.index[query].tolist() == list(range(query, 1001, 5))[:200]
        assert len(set(neighbors.similarity[query].tolist())) == 1


def test_references_may_come_in_parts_and_be_missing():
    queries, references = unit(20, 16), unit(100, 16, seed=1)
    references[::7] = np.nan
    references[3] = 0
    usable = np.flatnonzero(np.isfinite(references).all(axis=1) & (references != 0).any(axis=1))
    neighbors = nearest(queries, iter([references[:33], references[33:34], references[34:]]), 9)
    expected = nearest(queries, references[usable], 9)
    np.testing.assert_array_equal(neighbors.index, usable[expected.index])
    np.testing.assert_array_equal(neighbors.similarity, expected.similarity)
    with pytest.raises(ValueError, match=f"from {len(usable)} references"):
        nearest(queries, references, len(usable) + 1)


def test_lengths_of_vectors_do_not_matter():
    queries, references = unit(20, 16), unit(100, 16, seed=1)
    longer = references * np.random.default_rng(0).uniform(0.1, 9, (100, 1)).astype(np.float32)
    neighbors = nearest(3 * queries, longer, 9)
    expected = nearest(queries, references, 9)
    np.testing.assert_array_equal(neighbors.index, expected.index)
    np.testing.assert_allclose(neighbors.similarity, expected.similarity, rtol=1e-5)


def test_mean_and_standard_deviation_equal_numpy_in_any_blocks():
    rng = np.random.default_rng(0)
    profiles = rng.random((60, 11)).astype(np.float32)
    index = rng.integers(0, 60, (200, 7))
    weight, _ = weights(rng.uniform(-0.3, 1, (200, 7)))
    for size in (1, 13, 60):
        means = WeightedMeans(index, weight, 11)
        for start in range(0, len(means.rows), size):
            rows = means.rows[start : start + size]
            means.add(rows, profiles[rows])
        mean = np.array(
            [np.average(profiles[i], axis=0, weights=w) for i, w in zip(index, weight, strict=True)]
        )
        off = (profiles[index] - mean[:, None]) ** 2
        np.testing.assert_allclose(means.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(
            means.take_std(), np.sqrt((off * weight[..., None]).sum(axis=1)), atol=1e-5
        )


def test_one_reference_has_no_spread():
    means = WeightedMeans(np.array([[2], [0]]), np.ones((2, 1)), 3)
    means.add(np.arange(3), unit(3, 3))
    np.testing.assert_array_equal(means.mean, unit(3, 3)[[2, 0]])
    assert not means.take_std().any()
