import numpy as np
import pytest

import stp.retrieval
from stp.retrieval import nearest, weights


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_by_hand():
    references = np.array([[0, 1], [1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    found = nearest(np.array([[1, 0], [0, 1]], np.float32), references, 3)
    assert found.index.tolist() == [[1, 2, 0], [0, 2, 1]]
    np.testing.assert_allclose(found.similarity, [[1, 0.6, 0], [1, 0.8, 0]], rtol=1e-6)


def test_ties_go_to_the_lower_index():
    references = unit(3, 4)[np.arange(300) % 3]  # many: a sort that is not stable shows
    found = nearest(references[:2], references, 150).index
    assert found[:, :100].tolist() == [list(range(0, 300, 3)), list(range(1, 300, 3))]
    assert (np.diff(found[:, 100:]) == 3).all()


def test_blocks_do_not_change_what_is_found(monkeypatch):
    queries, references = unit(50, 8), unit(40, 8, seed=1)
    whole = nearest(queries, references, 7)
    scores = queries @ references.T
    np.testing.assert_array_equal(whole.index, np.argsort(-scores, axis=1)[:, :7])
    monkeypatch.setattr(stp.retrieval, "QUERIES", 7)
    monkeypatch.setattr(stp.retrieval, "REFERENCES", 9)
    blocks = nearest(queries, references, 7)
    np.testing.assert_array_equal(blocks.index, whole.index)
    np.testing.assert_allclose(blocks.similarity, whole.similarity, rtol=1e-6)
    assert (np.diff(whole.similarity) <= 0).all()


@pytest.mark.parametrize("k", [0, 6])
def test_k_must_be_possible(k):
    with pytest.raises(ValueError, match=f"cannot retrieve {k} neighbors from 5 references; lower n_neighbors"):
        nearest(unit(3, 4), unit(5, 4), k)
    assert nearest(unit(3, 4), unit(5, 4), 5).index.shape == (3, 5)


def test_weights_by_hand():
    weight, uniform = weights(np.array([[0.6, 0.2, 0.2], [0.5, 0, -0.5], [0, -0.1, -0.9], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(weight, [[0.6, 0.2, 0.2], [1, 0, 0], [1 / 3] * 3, [1 / 3] * 3], rtol=1e-6)
    assert uniform.tolist() == [False, False, True, True]


def test_weights_sum_to_one():
    weight, _ = weights(np.random.default_rng(0).uniform(-1, 1, (100, 7)).astype(np.float32))
    np.testing.assert_allclose(weight.sum(axis=1), 1)
    assert weight.min() == 0
