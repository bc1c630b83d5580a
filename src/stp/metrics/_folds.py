"""Folds of spots that keep slides or patients whole."""

from collections.abc import Iterable

import numpy as np

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to test


def folds(
    labels: np.ndarray, groups: np.ndarray | None = None, *, n_folds: int = 5, seed: int = 0
) -> list[Fold]:
    """Divide spots into folds: each group in turn is tested, or, within one slide, random parts.

    Parameters
    ----------
    labels
        (n,) classes; random folds hold them in like shares.
    groups
        (n,) slide or patient of each spot: one is tested, all others are trained on.
    n_folds
        Random folds, where there are no groups.
    seed
        Of the random folds.

    Raises
    ------
    ValueError
        There is one class or one group, or a class has fewer spots than there are folds.
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
            f"all spots are of one group {str(groups[0])!r}; give two or more, or none for random folds"
        )
    return list(LeaveOneGroupOut().split(labels, groups=groups))


def check_apart(train: Iterable[str], test: Iterable[str], what: str = "slide") -> None:
    """Refuse a split that has a slide in both sides."""
    if both := sorted(set(map(str, train)) & set(map(str, test))):
        raise ValueError(
            f"{what} {', '.join(both)} is in both sides of the split; keep each in one"
        )


def check_whole(slides: np.ndarray, groups: np.ndarray | None) -> None:
    """Refuse folds that cut a slide where there are several: without groups all would be cut."""
    slides = np.asarray(slides).astype(str)
    several = np.unique(slides)
    if len(several) < 2:
        return
    if groups is None:
        raise ValueError(
            f"spots are of {len(several)} slides; give group_key=, so that no slide is in both sides"
        )
    groups = np.asarray(groups).astype(str)
    for slide in several:
        if len(parts := np.unique(groups[slides == slide])) > 1:
            raise ValueError(
                f"slide {str(slide)!r} is in both sides of a split: its spots are of groups {', '.join(parts[:3])}; "
                "give a group_key= that keeps slides whole"
            )
