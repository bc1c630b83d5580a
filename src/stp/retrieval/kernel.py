"""Compiled loops of retrieval: keep the best references of each query, and average profiles."""

import numpy as np

from stp._kernels import compile_kernel

GROUP = 64  # scores that are compared before any is looked at


@compile_kernel(fastmath=("reassoc", "contract"))
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


# Worked example, with d = 2:
#   vectors       unit            usable
#   [3, 4]        [0.6, 0.8]      True     (length 5)
#   [0, 0]        [nan, nan]      False    (length 0)
#   [nan, 1]      [nan, nan]      False    (length nan)
@compile_kernel()
def to_unit_length(vectors: np.ndarray, unit: np.ndarray, usable: np.ndarray) -> None:
    """Divide each vector by its length; a vector of length 0 or with a missing value becomes NaN.

    Parameters
    ----------
    vectors
        Vectors (n, d) float32.
    unit
        Output (n, d) float32: the unit vectors.
    usable
        Output (n,) bool: whether a vector has a length.
    """
    for i in range(len(vectors)):
        length = np.sqrt(_dot(vectors[i], vectors[i]))
        usable[i] = 0 < length < np.inf
        for j in range(vectors.shape[1]):
            unit[i, j] = vectors[i, j] / np.float32(length) if usable[i] else np.nan


# Worked example: one query with k = 2, and a block of references that starts at first = 10.
#   lists so far: similarity [0.9, 0.5], index [4, 2]; slack 0.01
#   scores of references 10, 11 and 12: [0.3, 0.7, 0.9], in float32
#   The last place has 0.5, so the bound is 0.5 - 0.01 = 0.49.
#   10: 0.3 is below the bound and is skipped.
#   11: 0.7 is above it. Its exact cosine 0.7 beats 0.5 and takes the last place:
#       similarity [0.9, 0.7], index [4, 11], bound 0.69.
#   12: 0.9 is above it. Its exact cosine 0.9 beats 0.7, but not the 0.9 of reference 4:
#       similarity [0.9, 0.9], index [4, 12]. Of two equal cosines the lower index stays first.
@compile_kernel()
def keep_best(
    scores: np.ndarray,
    slack: float,
    queries: np.ndarray,
    block: np.ndarray,
    first: int,
    index: np.ndarray,
    similarity: np.ndarray,
) -> None:
    """Insert the references of one block into the lists of the k best references per query.

    The lists are sorted by cosine in float64. The float32 scores only decide which references are
    skipped. Blocks come in ascending order. A reference that ties with the last place of a list
    therefore has the higher index, and is skipped too.

    Parameters
    ----------
    scores
        Cosines (n, m) of queries and references in float32. NaN is skipped.
    slack
        Largest error of a score.
    queries
        Unit vectors (n, d) of the queries.
    block
        Unit vectors (m, d) of the references.
    first
        Index of the first reference of the block.
    index
        Lists (n, k) of references; changed in place.
    similarity
        Lists (n, k) of cosines, minus infinity at the start; changed in place.
    """
    last = index.shape[1] - 1
    m = scores.shape[1]
    for q in range(scores.shape[0]):
        row = scores[q]
        bound = np.float32(similarity[q, last] - slack)
        for start in range(0, m, GROUP):
            group = row[start : min(start + GROUP, m)]
            # Without a branch, and with integers as wide as scores, the CPU compares many at once.
            near = np.int32(0)
            for j in range(len(group)):
                near += np.int32(group[j] >= bound)
            if near == 0:
                continue
            for j in range(len(group)):
                if not group[j] >= bound:
                    continue
                exact = _dot(queries[q], block[start + j])
                if not exact > similarity[q, last]:
                    continue
                place = last
                while place > 0 and similarity[q, place - 1] < exact:
                    similarity[q, place] = similarity[q, place - 1]
                    index[q, place] = index[q, place - 1]
                    place -= 1
                similarity[q, place] = exact
                index[q, place] = first + start + j
                bound = np.float32(similarity[q, last] - slack)


# Worked example: index [2, 0, 2, -1] of two queries with k = 2, and starts [0, 1, 1].
#   pair 0 has profile 2: pairs[1] = 0, and the next pair of profile 2 goes to place 2
#   pair 1 has profile 0: pairs[0] = 1
#   pair 2 has profile 2: pairs[2] = 2
#   pair 3 has none.      pairs = [1, 0, 2]
@compile_kernel()
def sort_pairs(index: np.ndarray, places: np.ndarray, pairs: np.ndarray) -> None:
    """List the pairs of query and profile by profile; those of a profile stay in order.

    Parameters
    ----------
    index
        Profile of each pair (n_pairs,); -1 is none.
    places
        Place of the first pair of each profile; changed in place.
    pairs
        Output: the pairs.
    """
    for pair in range(len(index)):
        profile = index[pair]
        if profile >= 0:
            pairs[places[profile]] = pair
            places[profile] += 1


# Worked example: one query, two profiles of one gene with values 2 and 6, weights 0.25 and 0.75.
#   start:     total 0,    mean 0,  squares 0
#   profile 0: total 0.25, share 0.25 / 0.25 = 1
#              off  = 2 - 0 = 2,  mean = 0 + 1 * 2 = 2
#              squares = 0 + 0.25 * 2 * (2 - 2) = 0
#   profile 1: total 1,    share 0.75 / 1 = 0.75
#              off  = 6 - 2 = 4,  mean = 2 + 0.75 * 4 = 5
#              squares = 0 + 0.75 * 4 * (6 - 5) = 3
#   Check: 0.25 * 2 + 0.75 * 6 = 5, and 0.25 * (2 - 5)^2 + 0.75 * (6 - 5)^2 = 3.
@compile_kernel(fastmath=("reassoc", "contract"))
def add_profiles(
    profiles: np.ndarray,
    rows: np.ndarray,
    weight: np.ndarray,
    starts: np.ndarray,
    total: np.ndarray,
    mean: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Update the weighted mean and the weighted squared deviations of each query (West, 1979).

    Parameters
    ----------
    profiles
        Profiles (m, n_genes) float32.
    rows
        Row in `profiles` of each profile to add. Those of query q are `starts[q]` to
        `starts[q + 1]`.
    weight
        Weight of each profile to add.
    starts
        Start of each query in `rows` and `weight` (n + 1,).
    total
        Sum of the weights that were added (n,); changed in place.
    mean
        Weighted mean (n, n_genes); changed in place.
    squares
        Weighted sum of squared deviations from the mean (n, n_genes); changed in place.
    """
    for q in range(len(starts) - 1):
        for i in range(starts[q], starts[q + 1]):
            if weight[i] == 0:
                continue
            total[q] += weight[i]
            w = np.float32(weight[i])
            share = np.float32(weight[i] / total[q])
            profile = profiles[rows[i]]
            for g in range(profiles.shape[1]):
                off = profile[g] - mean[q, g]
                mean[q, g] += share * off
                squares[q, g] += w * off * (profile[g] - mean[q, g])
