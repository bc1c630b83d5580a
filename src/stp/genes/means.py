"""Mean counts of genes: from sums, back to sums, and as the divisors of a ranking."""

import numpy as np


def compute_means(sums: np.ndarray) -> np.ndarray:
    """Return mean counts over the spots that detect a gene, NaN if none does.

    Parameters
    ----------
    sums
        UMIs of each gene and number of spots that detect it, int64, shape (2, n_genes).
    """
    umis, n_detected = sums
    means = np.full(len(umis), np.nan)
    return np.divide(umis, n_detected, out=means, where=n_detected > 0)


def recover_sums(means: np.ndarray | None, n_detected: np.ndarray | None) -> np.ndarray:
    """Return the exact sums that `compute_means` made these means of.

    A mean is the float64 nearest to UMIs / spots. UMIs are whole and below 2**51, so they are the
    whole number nearest to mean * spots.
    """
    if means is None or n_detected is None:
        raise ValueError(
            "a vocabulary without means cannot be merged; Vocabulary.fit(data) computes them"
        )
    umis = np.rint(np.nan_to_num(means) * n_detected).astype(np.int64)
    return np.stack([umis, n_detected])


def compute_divisors(means: np.ndarray | None, round_means: bool) -> np.ndarray:
    """Return means, rounded half up if asked, with 1 in place of 0 and NaN."""
    if means is None:
        raise ValueError(
            "this vocabulary has no means to rank genes by; Vocabulary.fit(data) computes them"
        )
    divisors = np.nan_to_num(np.floor(means + 0.5) if round_means else means)
    return np.where(divisors > 0, divisors, 1.0)


def append_new(
    own: np.ndarray | None, others: np.ndarray | None, is_new: np.ndarray
) -> np.ndarray | None:
    """Append the values of new genes, or return None if one of the vocabularies has no values."""
    return None if own is None or others is None else np.append(own, others[is_new])
