"""Groups of neighboring spots for neighborhood training (paper, Algorithm 2)."""

import numpy as np

MAX_SPACINGS = (
    10.0  # D_max, in median nearest-neighbor distances of the slide (method.md section 3)
)


def spacing(coordinates: np.ndarray) -> float:
    """Return the median distance of a spot (n, 2) to its nearest neighbor, in the unit of the coordinates."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(coordinates).query(coordinates, k=2)[0][:, 1]))


def neighborhoods(
    coordinates: np.ndarray, rng: np.random.Generator, *, size: int = 9
) -> np.ndarray:
    """Draw disjoint groups: a random seed spot first, then its nearest spots that are still free.

    No group spreads over more than ten spacings of the slide: a seed whose group would, sits out, and its spots stay
    free. (Algorithm 2 drops all nine; this way every seed groups nine tenths of real sections.) The last spots, fewer
    than `size`, sit out too.

    Parameters
    ----------
    coordinates
        (n, 2) spot centers in any unit.
    rng
        Source of the order in which seeds are drawn.
    size
        Spots per group, the center included.

    Returns
    -------
    (n_groups, size) int64 indices of spots, the center first, then by distance.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import pdist

    if len(coordinates) < size:
        return np.empty((0, size), dtype=np.int64)
    tree, limit = cKDTree(coordinates), MAX_SPACINGS * spacing(coordinates)
    free, n_free, groups = np.ones(len(coordinates), dtype=bool), len(coordinates), []
    for seed in rng.permutation(len(coordinates)):
        if free[seed] and n_free >= size:
            group = _nearest_free(tree, coordinates[seed], seed, free, size)
            if pdist(coordinates[group]).max() <= limit:
                free[group] = False
                n_free -= size
                groups.append(group)
    return np.array(groups, dtype=np.int64).reshape(-1, size)


def _nearest_free(tree, center: np.ndarray, seed: int, free: np.ndarray, size: int) -> np.ndarray:
    """Return the seed and its nearest free spots, looking further while too few of the nearest are free."""
    k = 2 * size
    while True:
        near = np.atleast_1d(tree.query(center, k=min(k, len(free)))[1])
        near = near[free[near] & (near != seed)]
        if len(near) >= size - 1 or k >= len(free):
            return np.concatenate([[seed], near[: size - 1]])
        k *= 2
