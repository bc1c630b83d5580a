"""Scores of a target in each fold, pooled, and in each resample."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stp.metrics import _weighted as weighted
from stp.metrics import (
    calibration,
    compare_risk_groups,
    concordance,
    resample,
    uno_concordance,
    value_scores,
)
from stp.metrics._binary import class_decision_scores, decision_scores, ranking_scores
from stp.metrics._calibration import recalibration
from stp.tl._patient_predictions import TargetPredictions

STORED = "threshold"  # decision by the threshold that the models carry
HALF = "0.5"  # decision by a probability of 0.5
MOST_PROBABLE = "most probable"
MIN_CASES = 10  # positives, negatives or events from which on there is an interval
HIGH_RISK = ("hazard_ratio", "logrank_p")
# A fold has too few patients for a line or bins, and probabilities of models have one meaning.
CALIBRATION = ("calibration_slope", "calibration_intercept", "ece")


class ScoreName(NamedTuple):
    """A row of the table of scores."""

    score: str
    class_name: str = ""  # the class that is scored against all others; "" for all classes
    decision: str = ""  # how classes were chosen, for scores of chosen classes


Scores = dict[ScoreName, float]
ResampledScores = dict[ScoreName, np.ndarray]  # values (n_resamples,)


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
        if name.score in CALIBRATION:
            return self.pooled[name]
        values = [scores[name] for scores in self.folds.values()]
        is_defined = np.isfinite(values)
        return float(np.mean(np.array(values)[is_defined])) if is_defined.any() else np.nan

    def undefined_folds(self, name: ScoreName) -> list[str]:
        """Return the folds whose score is not defined and left out of the mean."""
        if name.score in CALIBRATION:
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
    return TargetScores(folds, pooled, resampled | _resample_calibration(predictions, draws))


def scored_classes(predictions: TargetPredictions) -> list[int]:
    """Return the classes that are scored against all others: the positive one, or all present."""
    if predictions.positive:
        return [predictions.classes.index(predictions.positive)]
    return np.unique(predictions.codes).tolist()


def _score(predictions: TargetPredictions, rows: np.ndarray, level: float) -> Scores:
    if predictions.kind == "classes":
        return _score_classes(predictions, rows)
    if predictions.kind == "value":
        scores = value_scores(predictions.values[rows], predictions.outputs[rows, 0])
        return {ScoreName(name): value for name, value in scores.items()}
    return _score_survival(predictions, rows, level)


def _score_classes(predictions: TargetPredictions, rows: np.ndarray) -> Scores:
    codes = predictions.codes[rows]
    probabilities = predictions.outputs[rows]
    scores: Scores = {}
    classes = scored_classes(predictions)
    for number in classes:
        name = predictions.classes[number]
        scores |= _score_class(name, codes == number, probabilities[:, number])
    if predictions.positive:
        is_positive = codes == classes[0]
        own = probabilities[:, classes[0]]
        scores[ScoreName("brier", predictions.positive)] = float(np.mean((own - is_positive) ** 2))
        for decision, is_predicted in _decisions(predictions, rows).items():
            for score, value in decision_scores(is_positive, is_predicted).items():
                scores[ScoreName(score, predictions.positive, decision)] = value
        return scores
    for score in ("auroc", "auprc", "ece"):
        values = [scores[ScoreName(score, predictions.classes[number])] for number in classes]
        scores[ScoreName(score)] = float(np.mean(values))
    is_class = codes[:, None] == np.arange(probabilities.shape[1])
    scores[ScoreName("brier")] = float(((probabilities - is_class) ** 2).sum(axis=1).mean())
    decisions = class_decision_scores(codes, predictions.predicted[rows], np.array(classes))
    return scores | {ScoreName(n, "", MOST_PROBABLE): value for n, value in decisions.items()}


def _score_class(name: str, is_positive: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Return the scores of a class against all others."""
    scores: Scores = {
        ScoreName(score, name): value
        for score, value in ranking_scores(is_positive, probabilities).items()
    }
    line = calibration(is_positive, np.clip(probabilities, 0, 1))
    scores[ScoreName("calibration_slope", name)] = line["slope"]
    scores[ScoreName("calibration_intercept", name)] = line["intercept"]
    scores[ScoreName("ece", name)] = line["ece"]
    return scores


def _decisions(predictions: TargetPredictions, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return whether each patient is predicted as positive, by the stored threshold and by 0.5."""
    positive = predictions.classes.index(predictions.positive)
    return {
        STORED: predictions.predicted[rows] == positive,
        HALF: predictions.outputs[rows, positive] >= 0.5,
    }


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
        return _resample_classes(predictions, rows, draws)
    values = predictions.values[rows]
    outputs = predictions.outputs[rows, 0]
    if predictions.kind == "value":
        scores = weighted.weighted_value_scores(values, outputs, draws)
    else:
        events = predictions.events[rows]
        scores = weighted.weighted_risk_scores(values, events, outputs, draws)
    return {ScoreName(name): resampled for name, resampled in scores.items()}


def _resample_classes(
    predictions: TargetPredictions, rows: np.ndarray, draws: np.ndarray
) -> ResampledScores:
    codes = predictions.codes[rows]
    probabilities = predictions.outputs[rows]
    classes = scored_classes(predictions)
    scores: ResampledScores = {}
    for number in classes:
        name = predictions.classes[number]
        own = weighted.weighted_binary_scores(codes == number, probabilities[:, number], draws)
        if not predictions.positive:
            del own["brier"]  # which is that of all classes
        scores |= {ScoreName(score, name): values for score, values in own.items()}
    if predictions.positive:
        is_positive = codes == classes[0]
        for decision, is_predicted in _decisions(predictions, rows).items():
            own = weighted.weighted_decision_scores(is_positive, is_predicted, draws)
            for score, values in own.items():
                scores[ScoreName(score, predictions.positive, decision)] = values
        return scores
    predicted = predictions.predicted[rows]
    several = weighted.weighted_class_scores(
        codes, probabilities, predicted, draws, classes=np.array(classes)
    )
    for score, values in several.items():
        is_chosen = score in ("accuracy", "balanced_accuracy", "f1")
        scores[ScoreName(score, "", MOST_PROBABLE if is_chosen else "")] = values
    return scores


def _resample_calibration(predictions: TargetPredictions, draws: np.ndarray) -> ResampledScores:
    """Return slope and intercept of all patients in each resample."""
    if predictions.kind != "classes":
        return {}
    scores: ResampledScores = {}
    for number in scored_classes(predictions):
        name = predictions.classes[number]
        is_positive = predictions.codes == number
        slope, intercept = recalibration(is_positive, predictions.outputs[:, number], draws)
        scores[ScoreName("calibration_slope", name)] = slope
        scores[ScoreName("calibration_intercept", name)] = intercept
    return scores


def n_cases(predictions: TargetPredictions, name: ScoreName) -> int:
    """Return the number that decides if there is an interval.

    It is the number of positives or negatives if it is smaller, of the rarest class for scores of
    all classes, of events for survival, and of patients for values.
    """
    if predictions.kind == "survival":
        return int(predictions.events.sum())
    if predictions.kind == "value":
        return len(predictions.values)
    if name.class_name:
        n_positive = int((predictions.codes == predictions.classes.index(name.class_name)).sum())
        return min(n_positive, len(predictions.codes) - n_positive)
    return int(np.unique(predictions.codes, return_counts=True)[1].min())
