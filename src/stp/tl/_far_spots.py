"""Spots that are far from all references of a retrieval, and results for spots without a vector."""

import numpy as np

MAX_DOUBTFUL = 0.05  # share of spots whose predictions say little; if there are more, warn

FAR_RULE = (
    "the highest similarity is not positive, or lower than the first quartile over these spots "
    "minus 1.5 times the distance between their quartiles"
)


def find_far(highest_similarity: np.ndarray) -> tuple[np.ndarray, float]:
    """Return which spots are far from all references, by Tukey's rule for outliers.

    The second value is the threshold. Spots without an embedding, whose similarity is NaN, are not
    far.
    """
    has_embedding = ~np.isnan(highest_similarity)
    low, high = np.quantile(highest_similarity[has_embedding], (0.25, 0.75))
    threshold = float(max(low - 1.5 * (high - low), 0.0))
    is_far = (highest_similarity < threshold) | (highest_similarity <= 0)
    return is_far, threshold


def fill_missing_spots(values: np.ndarray, has_embedding: np.ndarray) -> np.ndarray:
    """Return values for all spots: NaN, -1 or False for those without an embedding."""
    missing = {"f": np.nan, "i": -1, "b": False}[values.dtype.kind]
    all_values = np.full((len(has_embedding), *values.shape[1:]), missing, dtype=values.dtype)
    all_values[has_embedding] = values
    return all_values
