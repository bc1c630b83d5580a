"""Scores of a target in each fold, pooled, and in each resample."""

from dataclasses import dataclass

import numpy as np

from stp.metrics import _weighted as weighted
from stp.metrics import (
    compare_risk_groups,
    concordance,
    resample,
    uno_concordance,
    value_scores,
)
from stp.tl._class_scores import resample_calibration, resample_classes, score_classes
from stp.tl._patient_predictions import TargetPredictions
from stp.tl._score_names import HIGH_RISK, ResampledScores, ScoreName, Scores, is_calibration


@dataclass(frozen=True)
class Resampling:
    """How patients are resampled, and the level of the intervals."""

    n_resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class TargetScores:
    """Scores of a target.

    Parameters
    ----------
    folds
        Scores of each fold.
    pooled
        Scores of the patients of all folds together.
    resampled
        Scores of resamples: means over the folds in which a score is defined, or of all patients
        for calibration.
    """

    folds: dict[str, Scores]
    pooled: Scores
    resampled: ResampledScores

    def estimate(self, name: ScoreName) -> float:
        """Return the mean over the folds in which a score is defined; NaN if there is none.

        Calibration is that of all patients together.
        """
        if is_calibration(name):
            return self.pooled[name]
        values = [scores[name] for scores in self.folds.values()]
        is_defined = np.isfinite(values)
        return float(np.mean(np.array(values)[is_defined])) if is_defined.any() else np.nan

    def undefined_folds(self, name: ScoreName) -> list[str]:
        """Return the folds whose score is not defined and left out of the mean."""
        if is_calibration(name):
            return []
        return [fold for fold, scores in self.folds.items() if not np.isfinite(scores[name])]


def draw_patients(predictions: TargetPredictions, resampling: Resampling) -> np.ndarray:
    """Return how often each patient is drawn (n_resamples, n), within folds and classes."""
    fold_numbers = np.unique(predictions.groups.astype(str), return_inverse=True)[1]
    strata = fold_numbers * (predictions.codes.max() + 1) + predictions.codes
    return resample(strata, n_resamples=resampling.n_resamples, seed=resampling.seed)


def score_target(
    predictions: TargetPredictions, draws: np.ndarray, *, level: float = 0.95
) -> TargetScores:
    """Score a target in each fold, pooled, and in each resample.

    Parameters
    ----------
    predictions
        Patients with labels and predictions.
    draws
        How often each patient is drawn in each resample (n_resamples, n).
    level
        Level of the intervals.
    """
    everyone = np.arange(len(predictions.values))
    rows_of = {name: np.flatnonzero(predictions.groups == name) for name in predictions.group_names}
    folds = {name: _score(predictions, rows, level) for name, rows in rows_of.items()}
    pooled = _score(predictions, everyone, level)
    sums: ResampledScores = {}
    n_defined: dict[ScoreName, int] = {}
    for name, rows in rows_of.items():
        for score, values in _resampled(predictions, rows, draws[:, rows]).items():
            if np.isfinite(folds[name][score]):
                sums[score] = sums.get(score, 0.0) + values
                n_defined[score] = n_defined.get(score, 0) + 1
    resampled = {score: total / n_defined[score] for score, total in sums.items()}
    return TargetScores(folds, pooled, resampled | resample_calibration(predictions, draws))


def _score(predictions: TargetPredictions, rows: np.ndarray, level: float) -> Scores:
    if predictions.kind == "classes":
        return score_classes(predictions, rows)
    if predictions.kind == "value":
        scores = value_scores(predictions.values[rows], predictions.outputs[rows, 0])
        return {ScoreName(name): value for name, value in scores.items()}
    return _score_survival(predictions, rows, level)


def _score_survival(predictions: TargetPredictions, rows: np.ndarray, level: float) -> Scores:
    times = predictions.values[rows]
    events = predictions.events[rows]
    risks = predictions.outputs[rows, 0]
    scores = {
        ScoreName("harrell_c"): concordance(times, events, risks),
        ScoreName("uno_c"): uno_concordance(times, events, risks),
    }
    groups = compare_groups(predictions, rows, level=level)
    return scores | {ScoreName(name): groups[name] for name in HIGH_RISK}


def compare_groups(
    predictions: TargetPredictions,
    rows: np.ndarray,
    *,
    is_stratified: bool = False,
    level: float = 0.95,
) -> dict[str, float]:
    """Compare patients above and below the training median; NaN if it is not recorded."""
    thresholds = predictions.thresholds[rows]
    if not np.isfinite(thresholds).all():
        return dict.fromkeys((*HIGH_RISK, "low", "high"), np.nan)
    return compare_risk_groups(
        predictions.values[rows],
        predictions.events[rows],
        predictions.outputs[rows, 0] > thresholds,
        strata=predictions.groups[rows].astype(str) if is_stratified else None,
        level=level,
    )


def _resampled(
    predictions: TargetPredictions, rows: np.ndarray, draws: np.ndarray
) -> ResampledScores:
    if predictions.kind == "classes":
        return resample_classes(predictions, rows, draws)
    values = predictions.values[rows]
    outputs = predictions.outputs[rows, 0]
    if predictions.kind == "value":
        scores = weighted.weighted_value_scores(values, outputs, draws)
    else:
        events = predictions.events[rows]
        scores = weighted.weighted_risk_scores(values, events, outputs, draws)
    return {ScoreName(name): resampled for name, resampled in scores.items()}
