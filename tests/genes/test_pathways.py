import numpy as np
import pytest
from scipy.sparse import csr_matrix

from stp.genes.pathways import membership, set_scores

# The columns of a table are vocabulary genes 0, 2 (twice) and 4; one is unknown.
INDEX = np.array([4, -1, 2, 0, 2])
SETS = [np.array([0, 2]), np.array([2, 3, 4]), np.array([1, 3])]
COUNTS = np.array([[3, 5, 1, 0, 1], [0, 0, 0, 0, 0], [0, 10, 0, 0, 0]])


def test_scores_by_hand():
    scores = set_scores(csr_matrix(COUNTS), INDEX, membership(INDEX, SETS))
    # Two columns are gene 2. The total of 10 has the counts of all columns.
    gene_2 = np.log1p(2 * 1e4 / 10)
    gene_4 = np.log1p(3 * 1e4 / 10)
    np.testing.assert_allclose(scores[0], [gene_2 / 2, (gene_2 + gene_4) / 2, np.nan], rtol=1e-6)
    assert np.isnan(scores[1]).all()  # no counts
    np.testing.assert_array_equal(scores[2], [0, 0, np.nan])


def test_scores_do_not_change_the_counts():
    counts = csr_matrix(COUNTS)
    set_scores(counts, INDEX, membership(INDEX, SETS))
    np.testing.assert_array_equal(counts.toarray(), COUNTS)


@pytest.mark.parametrize("index", [np.array([-1, -1]), np.array([9, 8])])
def test_scores_are_missing_if_no_gene_is_measured(index):
    scores = set_scores(csr_matrix(np.ones((2, 2))), index, membership(index, SETS))
    assert scores.shape == (2, 3)
    assert np.isnan(scores).all()
