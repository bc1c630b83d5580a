import numpy as np
import pytest

from stp.data.masking import mask_tokens

GENES = range(30, 1030)


def mask(tokens, seed=0, fraction=0.15):
    rng = np.random.default_rng(seed)
    return mask_tokens(tokens, rng, fraction=fraction, mask_id=0, gene_tokens=GENES)


def test_shares_of_masked_random_and_unchanged_tokens():
    tokens = np.arange(100_000) % 1000 + 30
    before = tokens.copy()
    inputs, is_selected = mask(tokens)
    np.testing.assert_array_equal(tokens, before)
    assert is_selected.dtype == bool
    assert is_selected.sum() == 15_000
    np.testing.assert_array_equal(inputs[~is_selected], tokens[~is_selected])
    is_masked = (inputs == 0)[is_selected]
    is_same = (inputs == tokens)[is_selected]
    random_genes = inputs[is_selected][~is_masked & ~is_same]
    shares = np.array([is_masked.mean(), len(random_genes) / 15_000, is_same.mean()])
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.015)
    assert random_genes.min() >= 30
    assert random_genes.max() < 1030
    assert len(np.unique(random_genes)) > 700  # any gene, whatever stood there


def test_selected_positions_are_uniform():
    hits = sum(mask(np.full(20, 50), seed)[1].astype(int) for seed in range(4000))
    np.testing.assert_allclose(hits / 4000, 0.15, atol=0.025)


@pytest.mark.parametrize(
    ("length", "n_selected"), [(0, 0), (1, 1), (3, 1), (10, 2), (20, 3), (1500, 225)]
)
def test_at_least_one_token_is_selected(length, n_selected):
    inputs, is_selected = mask(np.full(length, 50))
    assert len(inputs) == len(is_selected) == length
    assert is_selected.sum() == n_selected


def test_masks_depend_on_the_generator_alone():
    tokens = np.arange(30, 330)
    first = mask(tokens, 1)
    again = mask(tokens, 1)
    other = mask(tokens, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
