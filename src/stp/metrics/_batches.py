"""How well an embedding predicts the batch of a spot, and its class across batches."""

import numpy as np

from stp.metrics._classes import classification_scores
from stp.metrics._folds import Fold, folds


def batch_effect(
    embedding: np.ndarray, batches: np.ndarray, *, slides: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Measure how well an embedding predicts the slide or patient of a spot.

    A linear discriminant analysis with shrinkage predicts spots that it was not fitted on. Without
    a batch effect its accuracy is chance. :func:`label_transfer` measures the biology in the same
    embedding.

    Parameters
    ----------
    embedding
        Embedding of the spots (n, d).
    batches
        Slide or patient of each spot (n,).
    slides
        Slide of each spot (n,), if batches are patients of several slides. The patient of a slide
        is then predicted from other slides.
    seed
        Random seed for the five folds that are used without `slides`.

    Returns
    -------
    "batch_accuracy", the balanced accuracy, and "batch_chance".

    Raises
    ------
    ValueError
        There is only one batch, a batch has fewer spots than there are folds, or, with `slides`,
        a batch has only one slide.

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
        single = [
            str(batch)
            for batch in np.unique(batches)
            if len(np.unique(slides[batches == batch])) < 2
        ]
        if single:
            raise ValueError(
                f"batch {', '.join(single)} has one slide, and each batch needs two or more; "
                "a slide's batch is predicted from the other slides"
            )
    return _score("batch", embedding, batches, folds(batches, slides, seed=seed))


def label_transfer(
    embedding: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> dict[str, float]:
    """Measure how well an embedding predicts the class of a spot from the other batches.

    Parameters
    ----------
    embedding
        Embedding of the spots (n, d).
    labels
        Class of each spot (n,).
    batches
        Slide or patient of each spot (n,).

    Returns
    -------
    "label_accuracy", the balanced accuracy, and "label_chance".

    Raises
    ------
    ValueError
        There is only one class or one batch.

    Examples
    --------
    >>> import numpy as np
    >>> embedding = np.random.default_rng(0).normal(size=(100, 4))
    >>> labels, batches = np.tile(["x", "y"], 50), np.repeat(["a", "b"], 50)
    >>> stp.metrics.label_transfer(embedding, labels, batches)["label_chance"]
    0.5
    """
    return _score("label", embedding, labels, folds(labels, batches))


def _score(
    name: str, embedding: np.ndarray, classes: np.ndarray, parts: list[Fold]
) -> dict[str, float]:
    """Predict the classes of each fold from the others, and return accuracy and chance."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    classes = np.asarray(classes).astype(str)
    predicted = np.empty_like(classes)
    for train, test in parts:
        n_classes = len(np.unique(classes[train]))
        if n_classes < 2:
            raise ValueError(
                f"a fold has only {name} {str(classes[train][0])!r} to be fitted on; "
                "give more slides"
            )
        # With equal priors a classifier that knows nothing scores chance, whatever the class sizes.
        classifier = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes)
        )
        classifier.fit(embedding[train], classes[train])
        predicted[test] = classifier.predict(embedding[test])
    accuracy = classification_scores(classes, predicted)["balanced_accuracy"]
    return {f"{name}_accuracy": accuracy, f"{name}_chance": 1 / len(np.unique(classes))}
