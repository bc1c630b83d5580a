"""Examples of a program: the extremes of each slide, without ties that lie side by side."""

import numpy as np
import pytest

from stp.tables.program_scores import choose_extremes


def test_each_slide_gives_its_share():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=60)
    scores[:20] += 10  # a slide with more of the program gives no more examples
    scores[:20] -= scores[:20].mean()
    slides = np.repeat([0, 1], [20, 40])
    highest, lowest = choose_extremes(scores, slides, 0.1)
    assert np.bincount(slides[highest]).tolist() == [2, 4]
    assert np.bincount(slides[lowest]).tolist() == [2, 4]
    for slide in (0, 1):
        own = np.flatnonzero(slides == slide)
        order = own[np.argsort(scores[own])]
        n = round(0.1 * len(own))
        assert set(highest[slides[highest] == slide]) == set(order[-n:])
        assert set(lowest[slides[lowest] == slide]) == set(order[:n])


def test_of_equal_scores_some_are_drawn_and_always_the_same():
    scores = np.r_[np.full(90, -0.1), np.full(10, 0.9)]
    slides = np.zeros(100, int)
    highest, lowest = choose_extremes(scores, slides, 0.1)
    assert highest.tolist() == list(range(90, 100))
    assert len(lowest) == 10 and lowest.max() > 45 and lowest.max() < 90
    again = choose_extremes(scores, slides, 0.1)
    np.testing.assert_array_equal(again[1], lowest)


def test_spots_without_a_score_are_no_examples_and_a_flat_slide_has_none():
    scores = np.r_[np.nan, 1.0, -1.0, np.nan, np.zeros(6)]
    slides = np.repeat([0, 1], [4, 6])
    highest, lowest = choose_extremes(scores, slides, 0.5)
    assert (highest.tolist(), lowest.tolist()) == ([1], [2])


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_no_spot_is_in_both_kinds(n):
    scores = np.linspace(-1, 1, n)
    highest, lowest = choose_extremes(scores, np.zeros(n, int), 0.5)
    assert not set(highest) & set(lowest)
