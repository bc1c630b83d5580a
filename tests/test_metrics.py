import numpy as np
import pytest

from stp.metrics import clustering_scores, gene_pearson, recall_at_k


def test_correlations_by_hand():
    measured = np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]])
    predicted = np.array([[2, 8, 1], [4, 6, 3], [6, 4, 2], [8, 2, 4]])
    np.testing.assert_allclose(gene_pearson(measured, predicted), [1, -1, 0.8])


def test_correlations_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    measured, predicted = rng.normal(3, 1, (200, 5)), rng.normal(-1, 4, (200, 5)).astype(np.float32)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(measured.T, predicted.T, strict=True)]
    np.testing.assert_allclose(gene_pearson(measured, predicted), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6])
def test_a_constant_gene_scores_zero(value):
    varying = np.random.default_rng(0).normal(size=(97, 1))
    constant = np.full((97, 1), value)
    for a, b in ((varying, constant), (constant, varying), (constant, constant)):
        assert gene_pearson(a, b).tolist() == [0.0]


def test_a_gene_that_hardly_varies_is_not_constant():
    varying = np.random.default_rng(0).normal(size=(100, 1))
    assert gene_pearson(varying, 5 + 1e-4 * varying) == pytest.approx(1)


def test_genes_do_not_bear_on_each_other():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100, 3))
    b[:, 2] = np.nan
    alone = gene_pearson(a[:, :1], b[:, :1])
    scaled = gene_pearson(a * [1, 1e12, 1], b * [1, 1e12, 1])
    assert scaled[0] == pytest.approx(alone[0])
    assert abs(alone[0]) > 0.01
    assert np.isnan(scaled[2])


def test_recall_by_hand():
    queries = np.eye(4)
    references = np.array([[1, 0, 0, 0], [0.9, 0.5, 0, 0], [0.8, 0.6, 0.7, 0], [0, 0, 0.9, 1]])
    # Ranks of the own reference: 0, 1 (behind the third), 1 (behind the fourth), 0.
    assert recall_at_k(queries, references, (1, 2, 3)) == {1: 0.5, 2: 1.0, 3: 1.0}


def test_ties_count_against_the_query():
    assert recall_at_k(np.ones((4, 2)), np.ones((4, 2)), (1, 3, 4)) == {1: 0.0, 3: 0.0, 4: 1.0}
    twins = np.eye(4)[[0, 0, 1, 2]]
    assert recall_at_k(twins, twins, (1, 2)) == {1: 0.5, 2: 1.0}


def test_recall_of_chance():
    queries, references = np.random.default_rng(0).normal(size=(2, 2000, 8))
    found = recall_at_k(queries, references, (20, 200))
    assert found == {20: pytest.approx(0.01, abs=0.007), 200: pytest.approx(0.1, abs=0.02)}
    assert list(recall_at_k(queries[:20], references[:20])) == [1, 5, 10]


def test_a_query_without_an_embedding_is_no_hit():
    vectors = np.eye(3)
    vectors[1] = np.nan
    assert recall_at_k(vectors, np.eye(3), (1, 2)) == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3)}


def test_clustering_scores_by_hand():
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    assert clustering_scores(labels, np.array([7, 7, 7, 1, 1, 1])) == {"ari": 1.0, "nmi": pytest.approx(1.0)}
    assert clustering_scores(labels, np.zeros(6)) == {"ari": 0.0, "nmi": 0.0}
    # Pairs: 15, of which 4 agree in both, 6 in labels, 7 in clusters: (4 - 6 * 7 / 15) / ((6 + 7) / 2 - 6 * 7 / 15).
    scores = clustering_scores(labels, np.array([0, 0, 0, 0, 1, 1]))
    assert scores["ari"] == pytest.approx((4 - 2.8) / (6.5 - 2.8))
    entropy = -(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(2 / 6))
    shared = 3 / 6 * np.log(3 / 4 * 2) + 1 / 6 * np.log(1 / 4 * 2) + 2 / 6 * np.log(2)
    assert scores["nmi"] == pytest.approx(shared / ((entropy + np.log(2)) / 2))
