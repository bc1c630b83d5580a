"""Groups of neighboring spots for neighborhood training (paper, Algorithm 2)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

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

    Returns
    -------
    Indices of spots (n_groups, size), int64: the seed first, then the others by distance.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import pdist

    if len(coordinates) < size:
        return np.empty((0, size), dtype=np.int64)
    tree = cKDTree(coordinates)
    max_distance = MAX_SPACINGS * spacing(coordinates)
    is_free = np.ones(len(coordinates), dtype=bool)
    n_free = len(coordinates)
    groups = []
    for seed in rng.permutation(len(coordinates)):
        if not is_free[seed] or n_free < size:
            continue
        if radius is None:
            group = _find_nearest_free(tree, coordinates[seed], seed, is_free, size)
            if pdist(coordinates[group]).max() > max_distance:
                continue
        else:
            group = _draw_free_within(tree, coordinates, seed, is_free, _Draw(size, radius, rng))
            if len(group) < size:
                continue
        is_free[group] = False
        n_free -= size
        groups.append(group)
    return np.array(groups, dtype=np.int64).reshape(-1, size)


def _find_nearest_free(
    tree: "cKDTree", center: np.ndarray, seed: int, is_free: np.ndarray, size: int
) -> np.ndarray:
    """Return the seed and its nearest free spots; the search widens until it has enough of them."""
    k = 2 * size
    while True:
        nearest = np.atleast_1d(tree.query(center, k=min(k, len(is_free)))[1])
        nearest = nearest[is_free[nearest] & (nearest != seed)]
        if len(nearest) >= size - 1 or k >= len(is_free):
            return np.concatenate([[seed], nearest[: size - 1]])
        k *= 2


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
