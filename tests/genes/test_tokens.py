import anndata
import numpy as np
import pytest
from scipy import sparse

from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes

N_SPECIAL = 30


def oracle(counts, divisors, context_length):
    """Rank one spot after the other, gene by gene, as Algorithm 1 is written."""
    tokens = np.zeros((len(counts), context_length), int)
    for row, spot in enumerate(counts):
        keys = [
            (-count / divisor, gene)
            for gene, (count, divisor) in enumerate(zip(spot, divisors, strict=True))
            if count
        ]
        ranked = [N_SPECIAL + gene for _, gene in sorted(keys)][:context_length]
        tokens[row, : len(ranked)] = ranked
    return tokens


def rank_all(counts, divisors, context_length, index=None):
    index = np.arange(len(divisors)) if index is None else np.asarray(index)
    table = rank_table(np.asarray(divisors, float))
    return rank_genes(
        sparse.csr_matrix(counts), index, table, context_length=context_length, n_special=N_SPECIAL
    )


def rank(counts, divisors, context_length, index=None):
    return rank_all(counts, divisors, context_length, index).tokens


@pytest.mark.parametrize("context_length", [1, 5, 40, 60])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("means", ["real", "whole"])
def test_ranks_equal_those_of_a_slow_oracle(seed, context_length, means):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(1, 0.3, (50, 40)) * (rng.random((50, 40)) < rng.random((50, 1)))
    counts[7] = 0
    if means == "real":
        divisors = rng.lognormal(0, 1, 40)
    else:
        divisors = rng.integers(1, 4, 40).astype(float)  # many ties
    tokens = rank(counts.astype(np.float32), divisors, context_length)
    assert tokens.dtype == np.uint16
    np.testing.assert_array_equal(tokens, oracle(counts, divisors, context_length))


def test_ranks_of_five_genes_are_those_computed_by_hand():
    # keys: 2 / 1, 4 / 4, none, 3 / 3, 9 / 3
    assert rank([[2, 4, 0, 3, 9]], [1, 4, 1, 3, 3], 6).tolist() == [[34, 30, 31, 33, 0, 0]]
    assert rank([[2, 4, 0, 3, 9]], [1, 4, 1, 3, 3], 3).tolist() == [[34, 30, 31]]


def test_ties_are_broken_by_ascending_index():
    assert rank([[3, 3, 6, 3]], [1, 1, 2, 1], 4).tolist() == [[30, 31, 32, 33]]


def test_scaling_a_spot_changes_nothing():
    counts = np.random.default_rng(0).poisson(2, (20, 30))
    divisors = np.random.default_rng(1).lognormal(0, 1, 30)
    np.testing.assert_array_equal(rank(counts, divisors, 30), rank(counts * 1024, divisors, 30))


def test_a_correctly_rounded_quotient_decides_not_a_product():
    # 5 / 5 and 49 / 49 tie at 1, so the index decides; 49 * (1 / 49) is below 1.
    assert 49 * (1 / 49) < 1
    assert rank([[49, 5]], [49, 5], 2).tolist() == [[30, 31]]


def test_empty_spots_are_padding():
    assert rank(np.zeros((2, 3)), [1, 1, 1], 4).tolist() == [[0] * 4] * 2
    assert rank(np.zeros((0, 3)), [1, 1, 1], 4).shape == (0, 4)


def test_the_largest_token_fits():
    n_genes = 65_505
    counts = sparse.csr_matrix(([1.0], [n_genes - 1], [0, 1]), shape=(1, n_genes))
    assert rank(counts, np.ones(n_genes), 1).tolist() == [[65_534]]


def test_ranks_of_a_real_section(real):
    adata = anndata.read_h5ad(real("her2st", "C4.h5ad"))[:20]
    divisors = np.random.default_rng(0).lognormal(0, 1, adata.n_vars)
    np.testing.assert_array_equal(
        rank(adata.X, divisors, 1500), oracle(adata.X.toarray(), divisors, 1500)
    )


def test_columns_of_a_gene_are_summed_and_others_left_out():
    # Columns: gene 2, unmapped, gene 0, gene 2 again, gene 4
    counts = [[1, 9, 2, 3, 0], [0, 8, 0, 4, 5], [0, 7, 0, 0, 0]]
    ranked = rank_all(counts, np.ones(6), 3, index=[2, -1, 0, 2, 4])
    assert ranked.tokens.tolist() == [[32, 30, 0], [34, 32, 0], [0, 0, 0]]
    assert ranked.unmapped.tolist() == [0, 24, 0, 0, 0]
    assert ranked.unmapped.dtype == np.int64


def test_parts_of_a_gene_that_are_small_make_a_sum_that_is_large():
    counts = np.array([[3, 1, 2, 2]])
    assert rank(counts, [1, 1, 1], 3, index=[0, 1, 2, 2]).tolist() == [[32, 30, 31]]
    assert rank(counts * 10**6, [1, 1, 1], 3, index=[0, 1, 2, 2]).tolist() == [[32, 30, 31]]


def test_columns_without_a_gene_give_no_tokens():
    ranked = rank_all(np.full((2, 3), 5), np.ones(4), 2, index=[-1, -1, -1])
    assert ranked.tokens.tolist() == [[0, 0]] * 2
    assert ranked.unmapped.tolist() == [10, 10, 10]


def test_tables_without_columns_or_spots_give_no_tokens():
    assert rank(np.zeros((2, 0)), np.ones(4), 2, index=np.zeros(0, int)).tolist() == [[0, 0]] * 2
    ranked = rank_all(np.zeros((0, 3)), np.ones(4), 2, index=[-1, 0, 1])
    assert (ranked.tokens.shape, ranked.unmapped.tolist()) == ((0, 2), [0, 0, 0])


def test_an_index_for_every_column_is_needed():
    with pytest.raises(ValueError, match="2 indices for 3 columns"):
        rank(np.ones((1, 3)), np.ones(4), 2, index=[0, 1])


@pytest.mark.parametrize("context_length", [5, 60])
def test_the_order_of_columns_does_not_matter(context_length):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1, (40, 50))
    index = rng.integers(-1, 20, 50)
    divisors = rng.lognormal(0, 1, 20)
    order = rng.permutation(50)
    expected = rank_all(counts, divisors, context_length, index)
    shuffled = rank_all(counts[:, order], divisors, context_length, index[order])
    np.testing.assert_array_equal(shuffled.tokens, expected.tokens)
    np.testing.assert_array_equal(shuffled.unmapped, expected.unmapped[order])
    summed = np.stack([counts[:, index == gene].sum(axis=1) for gene in range(20)], axis=1)
    np.testing.assert_array_equal(expected.tokens, oracle(summed, divisors, context_length))


def test_tokens_are_written_to_out():
    out = np.zeros((4, 3), np.uint16)
    ranked = rank_genes(
        sparse.csr_matrix([[1, 2], [0, 0]]),
        np.array([0, 1]),
        rank_table(np.ones(2)),
        context_length=3,
        n_special=N_SPECIAL,
        out=out[1:3],
    )
    assert np.shares_memory(ranked.tokens, out)
    assert out.tolist() == [[0, 0, 0], [31, 30, 0], [0, 0, 0], [0, 0, 0]]


def test_the_counts_are_left_as_they_were():
    counts = sparse.csr_matrix(
        (np.array([2.0, 0.0, 1.0]), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2)
    )
    rank_genes(
        counts, np.array([0, 1]), rank_table(np.ones(2)), context_length=2, n_special=N_SPECIAL
    )
    assert (counts.data.tolist(), counts.indices.tolist()) == ([2, 0, 1], [1, 0, 1])
