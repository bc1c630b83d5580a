import numpy as np
import pytest
import torch

from stp.models.pathways import PathwayEncoder

SETS = {"A": np.array([3, 5]), "B": np.array([5, 6, 7])}


@pytest.fixture
def encoder():
    return PathwayEncoder({name: len(genes) for name, genes in SETS.items()})


def test_scores_are_standardized_with_the_fitted_mean_and_deviation(encoder):
    scores = np.random.default_rng(0).normal([2, -1], [3, 0.5], (50, 2)).astype(np.float32)
    scores[3, 1] = np.nan
    encoder.fit(SETS.values(), [scores[:20], scores[20:]])
    expected = (scores - np.nanmean(scores, axis=0)) / np.nanstd(scores, axis=0)
    np.testing.assert_allclose(
        encoder(torch.from_numpy(scores)), np.nan_to_num(expected), rtol=1e-4, atol=1e-4
    )
    assert encoder(torch.from_numpy(scores))[3, 1] == 0  # not measured: the mean


def test_a_set_that_never_varies_stays_finite(encoder):
    encoder.fit(SETS.values(), [np.ones((5, 2), np.float32)])
    assert encoder(torch.ones(1, 2)).tolist() == [[0, 0]]


def test_sets_are_part_of_the_weights(encoder):
    encoder.fit(SETS.values(), [np.ones((5, 2), np.float32)])
    other = PathwayEncoder(encoder.sizes)
    other.load_state_dict(encoder.state_dict())
    assert list(other.sets) == ["A", "B"]
    for name, genes in SETS.items():
        np.testing.assert_array_equal(other.sets[name], genes)
    assert other.width == 2
    assert not list(other.parameters())
