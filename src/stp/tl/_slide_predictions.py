"""Compute the predictions of slide models, a patient at a time."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stp._progress import track
from stp.data.bag_file import read_source
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideTarget
from stp.tables.cohort import BagSource

TINY = 1e-30  # probability, of which there is a logarithm


@dataclass(frozen=True)
class SlidePredictions:
    """Predictions of all patients, in the order of their bags.

    Parameters
    ----------
    values
        Mean predictions (n_patients, n_columns).
    uncalibrated
        Mean predictions before the temperature (n_patients, n_columns).
    pooled
        Pooled vectors (n_patients, n_targets * hidden) of a single model; empty with several.
    is_far
        Whether a slide is far from the training slides, by id of the slide.
    """

    values: np.ndarray
    uncalibrated: np.ndarray
    pooled: np.ndarray
    is_far: dict[str, bool]


def predict_bags(
    bags: Mapping[str, Sequence[BagSource]],
    models: Sequence[SlideModel],
    is_unseen: np.ndarray,
    *,
    is_shown: bool,
) -> SlidePredictions:
    """Predict one patient after another, with the features of one in memory."""
    values = np.zeros((len(bags), len(models[0].config.columns)), np.float32)
    uncalibrated = np.zeros_like(values)
    pooled: list[np.ndarray] = []
    is_far: dict[str, bool] = {}
    slide_of: dict[bytes, str] = {}
    items = track(
        enumerate(bags.values()), "predict", "patient", total=len(bags), is_shown=is_shown
    )
    for number, bag in items:
        slides = [read_source(source) for source in bag]
        for source, tiles in zip(bag, slides, strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(tiles).data).digest()
            other = slide_of.setdefault(digest, source.slide)
            if other != source.slide and len(tiles):
                raise ValueError(
                    f"slides {other!r} and {source.slide!r} have the same features, so nothing was "
                    "written; leave one out"
                )
        device = models[0].feature_mean.device
        features = torch.from_numpy(np.concatenate(slides)).to(device)
        offsets = torch.tensor([0, len(features)])
        means = torch.from_numpy(np.stack([_mean(tiles) for tiles in slides])).to(device)
        pairs = zip(models, is_unseen[number], strict=True)
        speaking = [model for model, is_used in pairs if is_used]
        votes = np.zeros(len(bag))
        for model in speaking:
            vectors = model.pool(features, offsets)
            logits = model.predict_pooled(vectors)
            predictions = model.to_predictions(logits)[0].float().cpu().numpy()
            values[number] += predictions / len(speaking)
            uncalibrated[number] += _undo_temperature(model, predictions) / len(speaking)
            if len(models) == 1:
                pooled.append(vectors.flatten().float().cpu().numpy())
            cut = model.config.far_distance
            if cut is not None:
                votes += model.measure_distances(means).cpu().numpy() > cut
        for source, vote in zip(bag, votes, strict=True):
            is_far[source.slide] = bool(vote * 2 > len(speaking)) and source.n_tiles > 0
    return SlidePredictions(values, uncalibrated, np.array(pooled, np.float32), is_far)


def mean_thresholds(targets: Sequence[SlideTarget], is_unseen: np.ndarray) -> np.ndarray | None:
    """Return the mean threshold of the models that predicted a patient; None without one.

    It is that of the positive class, or the median risk of the training.
    """
    if targets[0].positive is None and targets[0].kind != "survival":
        return None
    is_survival = targets[0].kind == "survival"
    each = [target.median_risk if is_survival else target.threshold for target in targets]
    if None in each:
        return None
    return (is_unseen * np.array(each)).sum(axis=1) / is_unseen.sum(axis=1)


def _undo_temperature(model: SlideModel, predictions: np.ndarray) -> np.ndarray:
    """Return predictions (n_columns,) with the probabilities before the temperature."""
    uncalibrated = predictions.copy()
    first = 0
    for target in model.config.targets:
        columns = slice(first, first + len(target.columns))
        first = columns.stop
        if target.kind == "classes":
            logits = target.temperature * np.log(np.maximum(predictions[columns], TINY))
            exponents = np.exp(logits - logits.max())
            uncalibrated[columns] = exponents / exponents.sum()
    return uncalibrated


def _mean(tiles: np.ndarray) -> np.ndarray:
    """Return the mean of tiles (n, width); zeros if there are none."""
    if not len(tiles):
        return np.zeros(tiles.shape[1], np.float32)
    return tiles.mean(axis=0, dtype=np.float32)
