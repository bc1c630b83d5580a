"""Spots with nearly the same expression as a spot of another slide."""

import numpy as np

from stp.metrics._twins import share_with_twin


def slow_share(queries, references):
    has_twin = []
    for query in queries:
        correlations = []
        for reference in references:
            a, b = (np.log1p(spot / spot.sum() * 1e4) for spot in (query, reference))
            correlations.append(np.corrcoef(a, b)[0, 1])
        has_twin.append(max(correlations) > 0.99)
    return np.mean(has_twin)


def test_the_share_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    references = rng.poisson(rng.gamma(0.5, 40.0, 60), (30, 60)).astype(float)
    queries = np.concatenate([references[:8] * 3, rng.poisson(references[8:20])])
    share = share_with_twin(queries, [references[:11], references[11:]])
    assert share == slow_share(queries, references)
    assert 8 / 20 <= share < 1


def test_no_spots_have_no_twins():
    assert share_with_twin(np.zeros((0, 4)), [np.ones((3, 4))]) == 0
