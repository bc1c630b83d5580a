"""The compiled loop that draws groups of neighboring spots."""

import numpy as np

from stp._kernels import compile_kernel


# Worked example: spots 0 to 5 on a line at x = 0, 1, 2, 10, 11 and 12, groups of size 3, and a
# largest distance of 4. Each seed has its four nearest spots, itself included.
#   seed 1: nearest 1, 0, 2, 3. Spots 0 and 2 are free: group [1, 0, 2] spans 2, and is taken.
#   seed 0: not free any more, so it is skipped.
#   seed 3: nearest 3, 4, 5, 2. Spots 4 and 5 are free: group [3, 4, 5] spans 2, and is taken.
#   With seeds 1, 4 and nearest 4, 3, 2, 1 of seed 4, only spot 3 would be free: the loop stops
#   there, for its caller to search more spots.
@compile_kernel()
def draw_groups(
    coordinates: np.ndarray,
    seeds: np.ndarray,
    nearest: np.ndarray,
    max_distance: float,
    is_free: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
) -> tuple[int, int]:
    """Make a group of each seed that is free and whose nearest spots are free and near enough.

    Parameters
    ----------
    coordinates
        Spot centers (n, 2) float64.
    seeds
        Seeds (m,) in the order in which they are drawn.
    nearest
        Nearest spots of each seed (m, k), nearest first; a seed may be among its own.
    max_distance
        Largest distance between two spots of a group.
    is_free
        Whether each spot is in no group yet (n,); changed in place.
    groups
        Spots of each group (n_max, size), the seed first; filled from `n_groups` on.
    n_groups
        Number of groups so far.

    Returns
    -------
    The position of the first seed that has too few free spots in `nearest`, or m; and the number
    of groups.
    """
    size = groups.shape[1]
    n_free = len(is_free) - n_groups * size
    for s in range(len(seeds)):
        seed = seeds[s]
        if not is_free[seed] or n_free < size:
            continue
        group = groups[n_groups]
        group[0] = seed
        n_members = 1
        for spot in nearest[s]:
            if n_members == size:
                break
            if is_free[spot] and spot != seed:
                group[n_members] = spot
                n_members += 1
        if n_members < size:
            return s, n_groups
        widest = 0.0
        for i in range(size):
            for j in range(i):
                x = coordinates[group[i], 0] - coordinates[group[j], 0]
                y = coordinates[group[i], 1] - coordinates[group[j], 1]
                widest = max(widest, np.sqrt(x * x + y * y))
        if widest <= max_distance:
            for spot in group:
                is_free[spot] = False
            n_free -= size
            n_groups += 1
    return len(seeds), n_groups
