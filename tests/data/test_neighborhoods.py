import anndata
import numpy as np
import pandas as pd
import pytest

from stp.data.neighborhoods import neighborhoods, reach, spacing


def draw(coordinates, seed=0, size=9):
    return neighborhoods(np.asarray(coordinates, float), np.random.default_rng(seed), size=size)


def lattice(n=12, jitter=0.05):
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2)
    return grid + np.random.default_rng(0).normal(0, jitter, grid.shape)


@pytest.mark.parametrize("size", [2, 5, 9])
def test_groups_are_disjoint_and_of_one_size(size):
    groups = draw(lattice(), size=size)
    assert groups.dtype == np.int64
    assert groups.shape == (144 // size, size)
    assert len(np.unique(groups)) == groups.size
    assert groups.min() >= 0
    assert groups.max() < 144


def test_a_group_is_a_center_and_its_nearest_free_spots_by_distance():
    coordinates = lattice()
    free = np.ones(len(coordinates), bool)
    for center, *others in draw(coordinates):
        distance = np.linalg.norm(coordinates - coordinates[center], axis=1)
        candidates = np.flatnonzero(free)
        expected = candidates[np.argsort(distance[candidates])][:9]
        assert [center, *others] == expected.tolist()
        free[expected] = False
    assert free.sum() == 0


def test_the_first_group_of_an_open_lattice_is_a_square():
    coordinates = lattice(30, jitter=0)
    inner = (coordinates > 1).all(axis=1) & (coordinates < 28).all(axis=1)
    centers = (
        group for seed in range(5) for group in draw(coordinates, seed)[:1] if inner[group[0]]
    )
    groups = list(centers)
    assert groups
    for center, *others in groups:
        steps = {tuple(step) for step in coordinates[others] - coordinates[center]}
        assert steps == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)} - {(0, 0)}


def test_groups_follow_the_seed():
    coordinates = lattice()
    np.testing.assert_array_equal(draw(coordinates, 1), draw(coordinates, 1))
    first, second = (frozenset(map(frozenset, draw(coordinates, seed))) for seed in (1, 2))
    assert first != second


def draw_within(coordinates, radius, seed=0, size=9):
    return neighborhoods(coordinates, np.random.default_rng(seed), size=size, radius=radius)


def test_spots_within_a_radius_are_drawn_at_random_and_sorted_by_distance():
    coordinates = lattice(40)
    groups = draw_within(coordinates, 4.0)
    assert len(np.unique(groups)) == groups.size > 0.8 * 1600
    distance = np.linalg.norm(coordinates[groups] - coordinates[groups[:, :1]], axis=2)
    assert distance.max() <= 4.0
    assert (np.diff(distance, axis=1) >= 0).all()
    # Of the first group every spot within the radius is free, so all are equally likely.
    center = np.argmin(np.linalg.norm(coordinates - 20, axis=1))
    firsts = [draw_within(coordinates, 4.0, seed)[0] for seed in range(400)]
    steps = np.concatenate([coordinates[group[1:]] - coordinates[group[0]] for group in firsts])
    is_inner = (np.abs(np.stack([coordinates[group[0]] for group in firsts]) - 20) < 15).all(axis=1)
    inner = steps.reshape(400, 8, 2)[is_inner].reshape(-1, 2)
    around = np.linalg.norm(coordinates - coordinates[center], axis=1)
    share_near = np.count_nonzero((around <= 2) & (around > 0)) / np.count_nonzero(
        (around <= 4) & (around > 0)
    )
    assert (np.linalg.norm(inner, axis=1) <= 2).mean() == pytest.approx(share_near, abs=0.05)
    assert share_near < 0.3  # the nearest eight would all be there


def test_seeds_with_too_few_spots_within_the_radius_are_skipped():
    assert draw_within(lattice(), 1.2).shape == (0, 9)  # four neighbors
    islands = np.concatenate([lattice(3), lattice(2) + 100])
    assert sorted(draw_within(islands, 5.0)[0]) == list(range(9))


def test_neighborhoods_without_a_radius_are_as_before_it_was_there():
    expected = draw(lattice())
    np.testing.assert_array_equal(expected, draw_within(lattice(), None))
    assert expected[0].tolist() == [119, 107, 118, 131, 106, 130, 117, 95, 143]


def test_reach_is_the_median_distance_of_the_last_spot_of_a_group():
    coordinates = lattice(jitter=0)
    assert reach(coordinates, 9) == pytest.approx(np.sqrt(2))
    assert reach(coordinates, 5) == 1.0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_groups_do_not_depend_on_the_unit(unit):
    np.testing.assert_array_equal(draw(lattice() * unit), draw(lattice()))


def test_groups_that_spread_too_far_are_dropped():
    # Islands of 8 spots, 30 spacings apart: no group of 9 stays within 10, and groups of 8 do.
    island = np.array([[x, y] for x in range(4) for y in range(2)])
    islands = np.concatenate([island + [30 * k, 0] for k in range(6)])
    assert draw(islands).shape == (0, 9)
    groups = draw(islands, size=8)
    assert sorted(map(sorted, groups.tolist())) == np.arange(48).reshape(6, 8).tolist()


def test_the_spread_is_between_any_two_spots_of_a_group():
    # 11 spots on a line reach over 10 spacings; from the middle none is farther than 5.
    line = np.column_stack([np.arange(11), np.zeros(11)])
    assert [draw(line, seed, size=11).shape[0] for seed in range(5)] == [1] * 5
    line = np.column_stack([np.arange(12), np.zeros(12)])
    assert [draw(line, seed, size=12).shape[0] for seed in range(5)] == [0] * 5


@pytest.mark.parametrize("n", [0, 1, 8])
def test_too_few_spots_make_no_group(n):
    groups = draw(lattice()[:n])
    assert groups.shape == (0, 9)
    assert groups.dtype == np.int64


def test_all_spots_at_one_place():
    groups = draw(np.zeros((20, 2)))
    assert groups.shape == (2, 9)
    assert len(np.unique(groups)) == 18


def test_spacing_is_the_median_distance_to_the_nearest():
    assert spacing(np.array([[0, 0], [0, 3], [4, 3], [100, 3]])) == pytest.approx((3 + 4) / 2)


def share_grouped(coordinates, seed):
    return draw(coordinates, seed).size / len(coordinates)


@pytest.mark.parametrize("section", ["C4", "D1", "F1"])
def test_nearly_all_spots_of_real_sections_are_grouped(section, real):
    coordinates = anndata.read_h5ad(real("her2st", f"{section}.h5ad")).obsm["spatial"]
    shares = [share_grouped(coordinates, seed) for seed in range(10)]
    assert min(shares) >= 0.9


def test_nearly_all_spots_of_real_visium_are_grouped(real):
    spots = pd.read_csv(real("dlpfc", "dlpfc_spots_labels.tsv.gz"), sep="\t")
    shares = {
        name: share_grouped(slide[["px_col", "px_row"]], 0)
        for name, slide in spots.groupby("sample")
    }
    assert len(shares) == 12
    assert min(shares.values()) >= 0.9


def slow_groups(coordinates, size):
    """Draw groups seed by seed, each from all spots that are free."""
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    reach = 10 * np.median(np.sort(distances, axis=1)[:, 1])
    free = np.ones(len(coordinates), bool)
    groups = []
    for seed in np.random.default_rng(0).permutation(len(coordinates)):
        candidates = np.flatnonzero(free)
        group = candidates[np.argsort(distances[seed, candidates])][:size]
        if free[seed] and len(group) == size and distances[np.ix_(group, group)].max() <= reach:
            free[group] = False
            groups.append(group.tolist())
    return groups


@pytest.mark.parametrize("block_seeds", [1, 7, 10_000])
@pytest.mark.parametrize("size", [2, 9])
def test_groups_are_those_of_a_loop_over_seeds_in_any_blocks(block_seeds, size):
    rng = np.random.default_rng(1)
    islands = rng.random((20, 1, 2)) * 3000 + rng.normal(0, 20, (20, 25, 2))
    coordinates = islands.reshape(-1, 2)
    groups = neighborhoods(
        coordinates, np.random.default_rng(0), size=size, block_seeds=block_seeds
    )
    assert groups.tolist() == slow_groups(coordinates, size)
    assert groups.size < len(coordinates)
