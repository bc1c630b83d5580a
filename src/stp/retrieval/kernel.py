"""Keep the best references of each query, and average their profiles: the loops behind retrieval, compiled."""

import numpy as np
from numba import njit

GROUP = 64  # scores that are compared before any is looked at


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(a, b):
    total = 0.0
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@njit(nogil=True, cache=True)
def to_unit_length(vectors, unit, usable):
    """Divide vectors (n, d) by their lengths; those without one, or with a value missing, become NaN.

    Parameters
    ----------
    vectors
        (n, d) float32
    unit
        (n, d) float32; what comes out.
    usable
        (n,) bool; whether a vector has a length.
    """
    for i in range(len(vectors)):
        length = np.sqrt(_dot(vectors[i], vectors[i]))
        usable[i] = 0 < length < np.inf
        for j in range(vectors.shape[1]):
            unit[i, j] = vectors[i, j] / np.float32(length) if usable[i] else np.nan


@njit(nogil=True, cache=True)
def keep_best(scores, slack, queries, block, first, index, similarity):
    """Take the references of one block into the lists of the best, where they belong there.

    Lists are in order of similarity, which is computed in float64 for what comes near them: the scores, of float32,
    only tell what need not be looked at. Blocks come in order, so that what is no better than the last of a list is
    a tie that the lower index has won.

    Parameters
    ----------
    scores
        (n, m) cosines of queries and references; NaN is passed over.
    slack
        What they may be wrong by.
    queries, block
        (n, d) and (m, d) unit vectors.
    first
        Index of the first reference of the block.
    index, similarity
        (n, k) the lists; similarity starts at minus infinity.
    """
    last, m = index.shape[1] - 1, scores.shape[1]
    for q in range(scores.shape[0]):
        row, bound = scores[q], np.float32(similarity[q, last] - slack)
        for start in range(0, m, GROUP):
            group, near = row[start : min(start + GROUP, m)], np.int32(0)
            for j in range(
                len(group)
            ):  # counted without a branch, and as wide as scores: many are compared at once
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
                    similarity[q, place], index[q, place] = (
                        similarity[q, place - 1],
                        index[q, place - 1],
                    )
                    place -= 1
                similarity[q, place], index[q, place] = exact, first + start + j
                bound = np.float32(similarity[q, last] - slack)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def add_profiles(profiles, rows, weight, starts, total, mean, spread):
    """Add profiles to the weighted means of queries, and to the squares of what they deviate by (West, 1979).

    Parameters
    ----------
    profiles
        (m, n_genes) float32
    rows, weight
        Profiles that are added, and what they weigh; those of query q are `starts[q]` to `starts[q + 1]`.
    starts
        (n + 1,)
    total
        (n,) what the profiles of each query weigh so far.
    mean, spread
        (n, n_genes) weighted mean, and weighted sum of squared deviations from it, so far.
    """
    for q in range(len(starts) - 1):
        for i in range(starts[q], starts[q + 1]):
            if weight[i] == 0:
                continue
            total[q] += weight[i]
            w, share = np.float32(weight[i]), np.float32(weight[i] / total[q])
            profile = profiles[rows[i]]
            for g in range(profiles.shape[1]):
                off = profile[g] - mean[q, g]
                mean[q, g] += share * off
                spread[q, g] += w * off * (profile[g] - mean[q, g])
