"""Predict by position alone: copy the nearest spots of other sections of one tissue."""

from collections.abc import Sequence

import numpy as np


def copy_by_position(
    train: Sequence[tuple[np.ndarray, np.ndarray]], test: np.ndarray, n_nearest: int = 4
) -> np.ndarray:
    """Copy the nearest spots of each sister section after centering coordinates, without an image.

    Parameters
    ----------
    train
        Centers (n, 2) in µm and expression (n, n_genes) of each sister section.
    test
        Centers of the section that is predicted.
    n_nearest
        Number of spots that are copied from each section.
    """
    from scipy.spatial import cKDTree

    copies = []
    for centers, expression in train:
        tree = cKDTree(centers - centers.mean(axis=0))
        _, nearest = tree.query(test - test.mean(axis=0), k=n_nearest)
        copies.append(expression[nearest].mean(axis=1))
    return np.mean(copies, axis=0)
