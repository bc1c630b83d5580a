import numpy as np
import pytest

from stp.metrics import (
    ScoredGenes,
    batch_effect,
    classification_scores,
    clustering_scores,
    expression_scores,
    gene_pearson,
    label_transfer,
    recall_at_k,
    scored_genes,
    separation_scores,
)


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


def test_genes_do_not_influence_each_other():
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
    recall = recall_at_k(queries, references, (20, 200))
    assert recall == {20: pytest.approx(0.01, abs=0.007), 200: pytest.approx(0.1, abs=0.02)}
    assert list(recall_at_k(queries[:20], references[:20])) == [1, 5, 10]


def test_recall_does_not_depend_on_blocks_of_4096_queries():
    queries, references = np.random.default_rng(0).normal(size=(2, 4200, 4)) + np.arange(4)
    scores = queries @ references.T
    rank = (scores > scores.diagonal()[:, None]).sum(axis=1)
    expected = {k: np.mean(rank < k) for k in (1, 10, 100)}
    assert recall_at_k(queries, references, (1, 10, 100)) == expected


def test_a_query_without_an_embedding_is_no_hit():
    vectors = np.eye(3)
    vectors[1] = np.nan
    assert recall_at_k(vectors, np.eye(3), (1, 2)) == {
        1: pytest.approx(2 / 3),
        2: pytest.approx(2 / 3),
    }


def test_clustering_scores_by_hand():
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    same = clustering_scores(labels, np.array([7, 7, 7, 1, 1, 1]))
    assert same == pytest.approx({"ari": 1, "nmi": 1, "homogeneity": 1, "completeness": 1})
    single = clustering_scores(labels, np.zeros(6))
    assert single == pytest.approx({"ari": 0, "nmi": 0, "homogeneity": 0, "completeness": 1})
    each = clustering_scores(labels, np.array([0, 1, 2, 3, 3, 3]))
    assert each["homogeneity"] == pytest.approx(1)
    assert each["completeness"] == pytest.approx(np.log(2) / (np.log(2) / 2 + np.log(6) / 2))
    # Of 15 pairs 4 agree in both, 6 in labels and 7 in clusters:
    # (4 - 6 * 7 / 15) / ((6 + 7) / 2 - 6 * 7 / 15).
    scores = clustering_scores(labels, np.array([0, 0, 0, 0, 1, 1]))
    assert scores["ari"] == pytest.approx((4 - 2.8) / (6.5 - 2.8))
    entropy = -(4 / 6 * np.log(4 / 6) + 2 / 6 * np.log(2 / 6))
    shared = 3 / 6 * np.log(3 / 4 * 2) + 1 / 6 * np.log(1 / 4 * 2) + 2 / 6 * np.log(2)
    assert scores["nmi"] == pytest.approx(shared / ((entropy + np.log(2)) / 2))


def test_separation_is_high_where_clusters_lie_apart_and_undefined_for_one():
    rng = np.random.default_rng(0)
    clusters = np.repeat(["a", "b"], 50)
    near, far = (rng.normal(size=(100, 3)) + gap * (clusters == "b")[:, None] for gap in (0, 20))
    scores = [separation_scores(embedding, clusters) for embedding in (near, far)]
    assert scores[0]["silhouette"] < 0.1 and scores[1]["silhouette"] > 0.8
    assert scores[1]["calinski_harabasz"] > 100 * scores[0]["calinski_harabasz"]
    assert all(np.isnan(value) for value in separation_scores(far, np.zeros(100)).values())


def test_classification_by_hand():
    labels, predicted = np.array(["a", "a", "a", "b"]), np.array(["a", "a", "b", "b"])
    # Recalls 2/3 and 1; F1 of a is 2 * 2 / (2 * 2 + 1), of b 2 / (2 + 1).
    expected = {"balanced_accuracy": (2 / 3 + 1) / 2, "weighted_f1": 3 / 4 * 4 / 5 + 1 / 4 * 2 / 3}
    assert classification_scores(labels, predicted) == pytest.approx(expected)
    # A class that does not occur counts as a mistake, not as a class.
    assert classification_scores(labels, np.array(["a", "a", "c", "b"]))[
        "balanced_accuracy"
    ] == pytest.approx(5 / 6)


def test_genes_are_chosen_by_variance_and_mean():
    values = np.array([[0.0, 9, 5, 5], [0, 11, 5, 9]])
    genes = scored_genes(values, 2)
    assert (list(genes.variable), list(genes.expressed)) == ([3, 1], [1, 3])
    assert list(scored_genes(values).variable) == [3, 1, 0, 2]


def test_expression_scores_by_hand():
    measured = np.array([[1.0, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]])
    predicted = np.array([[1.0, 8, 9], [2, 6, 9], [3, 4, 9], [4, 2, 9]])
    scores = expression_scores(measured, predicted, ScoredGenes(np.array([0, 1]), np.array([0])))
    # Correlations 1 and -1; errors of the second gene 7, 4, 1, -2, over the union of both genes.
    assert scores == pytest.approx({"PCC-V": 0, "PCC-E": 1, "MSE": (49 + 16 + 1 + 4) / 8})
    constant = np.broadcast_to(measured.mean(axis=0), measured.shape)
    assert (
        expression_scores(measured, constant, ScoredGenes(np.arange(3), np.arange(3)))["PCC-V"] == 0
    )


@pytest.fixture
def two_slides_of_three_patients():
    """Spots whose first axis is the class, the second the patient."""
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(6), 60)
    patients, classes = slides // 2, np.arange(360) % 2
    embedding = rng.normal(size=(360, 8))
    embedding[:, 0] += 4 * classes
    return embedding, patients, slides, classes


def test_batch_and_class_are_predicted_only_if_the_embedding_has_them(two_slides_of_three_patients):
    embedding, patients, slides, classes = two_slides_of_three_patients
    assert label_transfer(embedding, classes, patients)["label_accuracy"] > 0.95
    assert label_transfer(embedding, classes, patients)["label_chance"] == 0.5
    for given_slides in (None, slides):
        scores = batch_effect(embedding, patients, slides=given_slides)
        assert scores["batch_chance"] == pytest.approx(1 / 3)
        assert scores["batch_accuracy"] == pytest.approx(1 / 3, abs=0.12)
    embedding[:, 1] += 6 * patients
    assert batch_effect(embedding, patients, slides=slides)["batch_accuracy"] > 0.95


def test_a_patient_is_not_predicted_from_the_slide_itself(two_slides_of_three_patients):
    embedding, patients, slides, _ = two_slides_of_three_patients
    embedding[:, :6] += 20 * np.eye(6)[slides]  # slides differ, patients do not
    assert batch_effect(embedding, patients)["batch_accuracy"] > 0.8
    assert batch_effect(embedding, patients, slides=slides)["batch_accuracy"] < 0.5


def test_batches_and_classes_that_cannot_be_predicted_are_refused(two_slides_of_three_patients):
    embedding, patients, slides, classes = two_slides_of_three_patients
    with pytest.raises(ValueError, match=r"one class \['0'\]"):
        batch_effect(embedding, np.zeros(360, int))
    with pytest.raises(ValueError, match="batch 2 has one slide, and each batch needs two or more"):
        batch_effect(embedding, patients, slides=np.minimum(slides, 4))
    with pytest.raises(ValueError, match="all spots belong to one group"):
        label_transfer(embedding, classes, np.zeros(360, int))
    with pytest.raises(
        ValueError, match="a fold has only label '1' to be fitted on; give more slides"
    ):
        label_transfer(embedding, slides // 3, slides // 3)
