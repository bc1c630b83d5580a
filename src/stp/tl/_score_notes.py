"""What a reader of a score must know: why it has no interval, and what it leaves out."""

import numpy as np

from stp._log import count, preview
from stp.tl._patient_predictions import TargetPredictions
from stp.tl._score_names import (
    BEFORE,
    HIGH_RISK,
    MIN_CASES,
    ScoreName,
    case_counts,
    is_calibration,
    n_cases,
)
from stp.tl._target_scores import TargetScores


def list_notes(predictions: TargetPredictions, scores: TargetScores, name: ScoreName) -> list[str]:
    """Return what a reader of a score must know."""
    notes = []
    if n_cases(predictions, name) < MIN_CASES:
        notes.append(f"no interval: {_few_cases(predictions, name)}")
    if is_calibration(name) and len(scores.folds) > 1:
        notes.append("of all folds together")
    if name.score in HIGH_RISK:
        return notes + _risk_notes(predictions, scores)
    notes += _fold_notes(predictions, scores, name)
    notes += _resample_notes(scores, name)
    absent = _absent_classes(predictions)
    if absent and not name.class_name:
        notes.append(f"no patient of {preview(absent)}")
    return notes


def _risk_notes(predictions: TargetPredictions, scores: TargetScores) -> list[str]:
    if not np.isfinite(predictions.thresholds).all():
        return ["not computed: the models record no median risk of the training"]
    return ["stratified by fold"] if len(scores.folds) > 1 else []


def _fold_notes(predictions: TargetPredictions, scores: TargetScores, name: ScoreName) -> list[str]:
    undefined = scores.undefined_folds(name)
    if undefined and len(undefined) < len(scores.folds):
        return [f"not defined in fold {preview(undefined, 10)}, and left out of the mean"]
    if not np.isfinite(scores.estimate(name)):
        return ["not defined: " + _reason(predictions)]
    return []


def _resample_notes(scores: TargetScores, name: ScoreName) -> list[str]:
    if name.score.endswith(BEFORE):
        return ["no interval"]
    if name.score == "ece":
        return ["no interval: resampling inflates it"]
    if name not in scores.resampled or not np.isfinite(scores.estimate(name)):
        return []
    n_undefined = int((~np.isfinite(scores.resampled[name])).sum())
    return [f"not defined in {count(n_undefined, 'resample')}"] if n_undefined else []


def _few_cases(predictions: TargetPredictions, name: ScoreName) -> str:
    n = n_cases(predictions, name)
    if predictions.kind == "survival":
        return count(n, "event")
    if predictions.kind == "value":
        return count(n, "patient")
    if not name.class_name:
        return f"{count(n, 'patient')} of the rarest class"
    n_positives = case_counts(predictions, name)["n_positives"]
    return count(n, "positive" if n == n_positives else "negative")


def _reason(predictions: TargetPredictions) -> str:
    if predictions.kind == "survival":
        return "no two patients can be compared"
    if predictions.kind == "value":
        return "all values are the same"
    return "a class is missing in each fold, or the probabilities separate the classes"


def _absent_classes(predictions: TargetPredictions) -> list[str]:
    if predictions.kind != "classes":
        return []
    present = set(predictions.codes.tolist())
    return [name for code, name in enumerate(predictions.classes) if code not in present]
