"""Rank correlations of shifted maps, by a slow loop over pairs of places."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata, spearmanr

from stp.metrics._shifts import shifted_correlations


def draw_map(seed=0, shape=(7, 9), n_others=3):
    """Places of a tissue with a hole, and maps that vary slowly."""
    rng = np.random.default_rng(seed)
    is_tissue = rng.random(shape) < 0.8
    is_tissue[2:4, 3:6] = False
    cells = np.argwhere(is_tissue)
    maps = [gaussian_filter(rng.normal(size=shape), 1.0)[is_tissue] for _ in range(n_others + 1)]
    return cells, maps[0], np.column_stack(maps[1:])


def shift_slowly(cells, values, others):
    """Correlate ranks over the pairs of each shift that has a quarter of the places."""
    shape = cells.max(axis=0) + 1
    position = {tuple(cell): number for number, cell in enumerate(cells)}
    ranks = rankdata(values)
    other_ranks = rankdata(others, axis=0)
    rows = []
    for dy in range(shape[0]):
        for dx in range(shape[1]):
            pairs = [
                (number, position[target])
                for cell, number in position.items()
                if (target := ((cell[0] + dy) % shape[0], (cell[1] + dx) % shape[1])) in position
            ]
            if (dy, dx) == (0, 0) or len(pairs) < len(cells) / 4:
                continue
            first, second = np.array(pairs).T
            rows.append(
                [np.corrcoef(ranks[first], column[second])[0, 1] for column in other_ranks.T]
            )
    return np.array(rows)


def test_all_shifts_are_those_of_a_slow_loop():
    cells, values, others = draw_map()
    result = shifted_correlations(values, others, cells, n_shifts=1000)
    np.testing.assert_allclose(result.null, shift_slowly(cells, values, others), atol=1e-10)
    expected = [spearmanr(values, column).statistic for column in others.T]
    np.testing.assert_allclose(result.correlation, expected)


def test_drawn_shifts_are_some_of_all_and_those_of_the_seed():
    cells, values, others = draw_map()
    every = shifted_correlations(values, others, cells, n_shifts=1000).null
    some = shifted_correlations(values, others, cells, n_shifts=10, seed=3).null
    assert len(some) == 10 < len(every)
    distance = np.abs(every[:, None] - some[None]).max(axis=2)
    assert (distance.min(axis=0) < 1e-10).all()
    assert len(np.unique(distance.argmin(axis=0))) == 10
    again = shifted_correlations(values, others, cells, n_shifts=10, seed=3).null
    np.testing.assert_array_equal(some, again)


def test_places_may_be_in_any_order_and_at_any_offset():
    cells, values, others = draw_map()
    order = np.random.default_rng(1).permutation(len(cells))
    first = shifted_correlations(values, others, cells, n_shifts=1000)
    second = shifted_correlations(values[order], others[order], cells[order] + 5, n_shifts=1000)
    np.testing.assert_allclose(first.null, second.null, atol=1e-10)


def test_many_maps_in_blocks_are_each_map_alone():
    cells, values, others = draw_map(n_others=3)
    wide = np.tile(others, (1, 40000))  # more than one block
    result = shifted_correlations(values, wide, cells, n_shifts=5)
    alone = shifted_correlations(values, others, cells, n_shifts=5)
    np.testing.assert_allclose(result.null[:, -3:], alone.null, atol=1e-10)


def test_a_constant_map_has_no_correlation():
    cells, values, others = draw_map()
    others[:, 1] = 4.0
    result = shifted_correlations(values, others, cells)
    assert np.isnan(result.correlation).tolist() == [False, True, False]
    assert np.isnan(result.null[:, 1]).all() and np.isfinite(result.null[:, 0]).all()
    assert np.isnan(result.standardized()).tolist() == [False, True, False]
    result = shifted_correlations(np.ones(len(cells)), others, cells)
    assert np.isnan(result.correlation).all()


def test_standardized_correlations_are_conservative_for_smooth_maps_that_are_unrelated():
    z = []
    for seed in range(150):
        cells, values, others = draw_map(seed, (12, 12), 4)
        z.append(shifted_correlations(values, others, cells, n_shifts=200).standardized())
    z = np.concatenate(z)
    naive = np.concatenate(
        [
            [spearmanr(values, column).pvalue for column in others.T]
            for _, values, others in (draw_map(seed, (12, 12), 4) for seed in range(150))
        ]
    )
    assert (naive < 0.05).mean() > 0.15  # a test that ignores the neighborhood
    assert (np.abs(z) > 1.96).mean() < 0.07
    assert abs(z.mean()) < 3 / np.sqrt(len(z))


def test_two_places_on_one_cell_are_refused():
    cells, values, others = draw_map()
    cells[1] = cells[0]
    with pytest.raises(ValueError, match="two places have the same cell"):
        shifted_correlations(values, others, cells)
