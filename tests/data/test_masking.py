import numpy as np
import pytest

from stp.data.masking import mask_tokens

GENES = (30, 1030)


def mask(tokens, seed=0, fraction=0.15):
    rng = np.random.default_rng(seed)
    return mask_tokens(tokens, rng, fraction=fraction, mask_id=0, gene_ids=GENES)


def test_shares_of_masked_random_and_kept():
    tokens = np.arange(100_000) % 1000 + 30
    before = tokens.copy()
    inputs, chosen = mask(tokens)
    np.testing.assert_array_equal(tokens, before)
    assert chosen.dtype == bool
    assert chosen.sum() == 15_000
    np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
    masked, kept = (inputs == 0)[chosen], (inputs == tokens)[chosen]
    replaced = inputs[chosen][~masked & ~kept]
    shares = np.array([masked.mean(), len(replaced) / 15_000, kept.mean()])
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.015)
    assert replaced.min() >= 30
    assert replaced.max() < 1030
    assert len(np.unique(replaced)) > 700  # any gene, whatever stood there


def test_chosen_positions_are_uniform():
    hits = sum(mask(np.full(20, 50), seed)[1].astype(int) for seed in range(4000))
    np.testing.assert_allclose(hits / 4000, 0.15, atol=0.025)


@pytest.mark.parametrize(
    ("length", "chosen"), [(0, 0), (1, 1), (3, 1), (10, 2), (20, 3), (1500, 225)]
)
def test_at_least_one_is_chosen(length, chosen):
    inputs, where = mask(np.full(length, 50))
    assert len(inputs) == len(where) == length
    assert where.sum() == chosen


def test_masks_depend_on_the_generator_alone():
    tokens = np.arange(30, 330)
    first, again, other = mask(tokens, 1), mask(tokens, 1), mask(tokens, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
