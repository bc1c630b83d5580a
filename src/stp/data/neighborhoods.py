"""Groups of neighboring spots for neighborhood training (paper, Algorithm 2)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

BLOCK_SEEDS = 4096  # seeds whose nearest spots are searched at a time
SAFE_FACTOR = 1 + 1e-9  # distances that are computed in two ways differ by less
MAX_SPACINGS = 10.0  # D_max, in median distances to the nearest spot (method.md section 3)


class _Draw(NamedTuple):
    """How the spots of a group are drawn around its seed."""

    size: int  # spots of the group, the seed included
    radius: float
    rng: np.random.Generator


def spacing(coordinates: np.ndarray) -> float:
    """Return the median distance of spots (n, 2) to their nearest spot, in their unit."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(coordinates).query(coordinates, k=2)
    return float(np.median(distances[:, 1]))  # the first is the spot itself


def reach(coordinates: np.ndarray, size: int) -> float:
    """Return the median distance within which a spot (n, 2) has `size` spots, itself included."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(coordinates).query(coordinates, k=[size])
    return float(np.median(distances))


def neighborhoods(
    coordinates: np.ndarray,
    rng: np.random.Generator,
    *,
    size: int = 9,
    radius: float | None = None,
    block_seeds: int = BLOCK_SEEDS,
) -> np.ndarray:
    """Draw disjoint groups of neighboring spots.

    Seed spots are drawn in random order. A group is a seed and its nearest spots that are not yet
    in a group. It must span at most ten times the spacing of the slide. If it is wider, only its
    seed is skipped, and all its spots can still join other groups. Algorithm 2 drops all of them;
    this way nine tenths of the spots of real sections are in a group. The last spots, fewer than
    `size`, have no group.

    With a radius, the other spots of a group are drawn at random from the free spots within it.
    Seeds with too few of them are skipped.

    Parameters
    ----------
    coordinates
        Spot centers (n, 2) in any unit.
    rng
        Random generator for the order of the seeds.
    size
        Number of spots per group, the seed included.
    radius
        Distance from the seed, in the unit of the coordinates, within which the others are drawn;
        by default they are the nearest.
    block_seeds
        Number of seeds whose nearest spots are searched at a time.

    Returns
    -------
    Indices of spots (n_groups, size), int64: the seed first, then the others by distance.
    """
    from scipy.spatial import cKDTree

    coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
    n_spots = len(coordinates)
    groups = np.empty((n_spots // size + 1, size), dtype=np.int64)
    if n_spots < size:
        return groups[:0]
    tree = cKDTree(coordinates)
    order = rng.permutation(n_spots)
    if radius is None:
        return _group_nearest(tree, coordinates, order, groups, block_seeds)
    return _group_within(tree, coordinates, order, groups, _Draw(size, radius, rng))


def _group_nearest(
    tree: "cKDTree",
    coordinates: np.ndarray,
    order: np.ndarray,
    groups: np.ndarray,
    block_seeds: int,
) -> np.ndarray:
    """Group each seed, in order, with its nearest free spots; return the groups."""
    from stp.data.neighborhood_kernel import draw_groups  # workers of a loader need no compiler

    n_spots = len(order)
    size = groups.shape[1]
    max_distance = MAX_SPACINGS * spacing(coordinates)
    is_free = np.ones(n_spots, dtype=bool)
    n_groups = 0
    for start in range(0, n_spots, block_seeds):
        seeds = order[start : start + block_seeds]
        seeds = seeds[is_free[seeds]]
        nearest = _find_nearest(tree, coordinates[seeds], 2 * size)
        position = 0
        while position < len(seeds):
            n_done, n_groups = draw_groups(
                coordinates,
                seeds[position:],
                nearest[position:],
                max_distance,
                is_free,
                groups,
                n_groups,
            )
            position += n_done
            if position < len(seeds):  # this seed has too few free spots near it
                seed = seeds[position : position + 1]
                n_groups = _widen(tree, coordinates, seed, max_distance, is_free, groups, n_groups)
                position += 1
    return groups[:n_groups]


def _widen(
    tree: "cKDTree",
    coordinates: np.ndarray,
    seed: np.ndarray,
    max_distance: float,
    is_free: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
) -> int:
    """Search more spots for the group of one seed; return the number of groups then.

    The search ends without a group if all spots within the largest distance were searched.
    """
    from stp.data.neighborhood_kernel import draw_groups

    k = 2 * groups.shape[1]
    n_done = 0
    reach = 0.0
    while not n_done and reach <= max_distance * SAFE_FACTOR:
        k *= 2
        distances, nearest = tree.query(coordinates[seed], k=min(k, tree.n))
        reach = distances.max()
        n_done, n_groups = draw_groups(
            coordinates, seed, nearest, max_distance, is_free, groups, n_groups
        )
    return n_groups


def _find_nearest(tree: "cKDTree", centers: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest spots of each center (m, k), or all spots if there are fewer."""
    k = min(k, tree.n)
    return tree.query(centers, k=k)[1].reshape(len(centers), k)


def _group_within(
    tree: "cKDTree", coordinates: np.ndarray, order: np.ndarray, groups: np.ndarray, draw: _Draw
) -> np.ndarray:
    """Group each seed, in order, with free spots around it; return the groups."""
    is_free = np.ones(len(order), dtype=bool)
    n_groups = 0
    for seed in order:
        if not is_free[seed]:
            continue
        group = _draw_free_within(tree, coordinates, seed, is_free, draw)
        if len(group) == draw.size:
            groups[n_groups] = group
            n_groups += 1
            is_free[group] = False
    return groups[:n_groups]


def _draw_free_within(
    tree: "cKDTree", coordinates: np.ndarray, seed: int, is_free: np.ndarray, draw: _Draw
) -> np.ndarray:
    """Return the seed and free spots around it, nearest first; with too few, all there are."""
    within = np.array(tree.query_ball_point(coordinates[seed], draw.radius, return_sorted=True))
    others = within[is_free[within] & (within != seed)]
    if len(others) > draw.size - 1:
        others = draw.rng.choice(others, draw.size - 1, replace=False)
    distance = np.linalg.norm(coordinates[others] - coordinates[seed], axis=1)
    return np.concatenate([[seed], others[np.lexsort((others, distance))]])
