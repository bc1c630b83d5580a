"""Folds of spots that keep slides or patients whole."""

from collections.abc import Iterable

import numpy as np

from stp._log import preview

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to test


def folds(
    labels: np.ndarray, groups: np.ndarray | None = None, *, n_folds: int = 5, seed: int = 0
) -> list[Fold]:
    """Divide spots into folds, one per group, or at random if there are no groups.

    Parameters
    ----------
    labels
        Class of each spot (n,); random folds have about the same share of each class.
    groups
        Slide or patient of each spot (n,). Each group is tested once, after training on the others.
    n_folds
        Number of random folds.
    seed
        Random seed for the folds.

    Returns
    -------
    Rows to train on and rows to test, for each fold.

    Raises
    ------
    ValueError
        There is only one class or one group, or a class has fewer spots than there are folds.
    """
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

    labels = np.asarray(labels).astype(str)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"there is one class {names.tolist()}; at least two are needed")
    if groups is None:
        if counts.min() < n_folds:
            rare = str(names[counts.argmin()])
            raise ValueError(
                f"class {rare!r} has {counts.min()} spots, fewer than {n_folds} folds; leave it out"
            )
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels))
    groups = np.asarray(groups).astype(str)
    if len(np.unique(groups)) < 2:
        raise ValueError(
            f"all spots belong to one group {str(groups[0])!r}; "
            "give two or more, or none for random folds"
        )
    return list(LeaveOneGroupOut().split(labels, groups=groups))


def check_apart(train: Iterable[str], test: Iterable[str], unit: str = "slide") -> None:
    """Raise ValueError if a slide or patient is on both sides of a split."""
    on_both_sides = sorted(set(map(str, train)) & set(map(str, test)))
    if on_both_sides:
        raise ValueError(
            f"{unit} {', '.join(on_both_sides)} is on both sides of the split; keep it on one side"
        )


def check_whole(slides: np.ndarray, groups: np.ndarray | None) -> None:
    """Raise ValueError if folds divide a slide; random folds divide all slides.

    The spots of a single slide may be divided.
    """
    slides = np.asarray(slides).astype(str)
    names = np.unique(slides)
    if len(names) < 2:
        return
    if groups is None:
        raise ValueError(
            f"the spots are of {len(names)} slides; give group_key=, "
            "so that no slide is on both sides"
        )
    groups = np.asarray(groups).astype(str)
    for slide in names:
        slide_groups = np.unique(groups[slides == slide])
        if len(slide_groups) > 1:
            raise ValueError(
                f"slide {str(slide)!r} is on both sides of a split: its spots are of groups "
                f"{preview(slide_groups)}; give a group_key= that keeps slides whole"
            )
