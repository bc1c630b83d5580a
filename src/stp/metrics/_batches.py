"""What can be read off an embedding: the batch of a spot, and its class across batches."""

import numpy as np

from stp.metrics._classes import classification_scores
from stp.metrics._folds import Fold, folds


def batch_effect(
    embedding: np.ndarray, batches: np.ndarray, *, slides: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Tell how well the batch of a spot can be read off its embedding.

    It is read by linear discriminant analysis with shrinkage, of spots that this was not fitted on. Without a batch
    effect the accuracy is chance. :func:`label_transfer` says what biology is carried beside it.

    Parameters
    ----------
    embedding
        (n, d)
    batches
        (n,) slide or patient of each spot.
    slides
        (n,) where batches are patients of several slides: a slide's patient is then read from other slides, not from
        its own spots.
    seed
        Of the five random folds where `slides` is not given.

    Returns
    -------
    "batch_accuracy", balanced, and "batch_chance".

    Raises
    ------
    ValueError
        There is one batch, a batch has fewer spots than there are folds, or, with `slides`, only one slide.

    Examples
    --------
    >>> import numpy as np
    >>> embedding = np.random.default_rng(0).normal(size=(100, 4))
    >>> scores = stp.metrics.batch_effect(embedding, np.repeat(["a", "b"], 50))
    >>> scores["batch_chance"]
    0.5
    """
    batches = np.asarray(batches).astype(str)
    if slides is not None:
        slides = np.asarray(slides).astype(str)
        if single := [
            str(batch)
            for batch in np.unique(batches)
            if len(np.unique(slides[batches == batch])) < 2
        ]:
            raise ValueError(
                f"batch {', '.join(single)} has one slide; it can be read from other slides of it only"
            )
    return _read_off("batch", embedding, batches, folds(batches, slides, seed=seed))


def label_transfer(
    embedding: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> dict[str, float]:
    """Tell how well the class of a spot can be read off its embedding, in each batch from all others.

    Parameters
    ----------
    embedding
        (n, d)
    labels
        (n,) class of each spot.
    batches
        (n,) slide or patient of each spot.

    Returns
    -------
    "label_accuracy", balanced, and "label_chance".

    Raises
    ------
    ValueError
        There is one class or one batch.

    Examples
    --------
    >>> import numpy as np
    >>> embedding = np.random.default_rng(0).normal(size=(100, 4))
    >>> labels, batches = np.tile(["x", "y"], 50), np.repeat(["a", "b"], 50)
    >>> stp.metrics.label_transfer(embedding, labels, batches)["label_chance"]
    0.5
    """
    return _read_off("label", embedding, labels, folds(labels, batches))


def _read_off(
    what: str, embedding: np.ndarray, classes: np.ndarray, parts: list[Fold]
) -> dict[str, float]:
    """Read classes in each fold from the others."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    classes = np.asarray(classes).astype(str)
    found = np.empty_like(classes)
    for train, test in parts:
        n_classes = len(np.unique(classes[train]))
        if n_classes < 2:
            raise ValueError(
                f"{what} {str(classes[train][0])!r} is all that a fold is fitted on; give more slides"
            )
        # Equal priors: a reader that knows nothing then scores chance, however many spots a class has.
        reader = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes)
        )
        found[test] = reader.fit(embedding[train], classes[train]).predict(embedding[test])
    accuracy = classification_scores(classes, found)["balanced_accuracy"]
    return {f"{what}_accuracy": accuracy, f"{what}_chance": 1 / len(np.unique(classes))}
