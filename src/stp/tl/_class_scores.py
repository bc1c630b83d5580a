"""Scores of predicted classes in a fold, and in each resample."""

import numpy as np

from stp.metrics import _weighted as weighted
from stp.metrics import calibration
from stp.metrics._binary import class_decision_scores, decision_scores, ranking_scores
from stp.metrics._calibration import recalibration
from stp.tl._patient_predictions import TargetPredictions
from stp.tl._score_names import (
    BEFORE,
    HALF,
    MOST_PROBABLE,
    STORED,
    ResampledScores,
    ScoreName,
    Scores,
)


def scored_classes(predictions: TargetPredictions) -> list[int]:
    """Return the classes that are scored against all others: the positive one, or all present."""
    if predictions.positive:
        return [predictions.classes.index(predictions.positive)]
    return np.unique(predictions.codes).tolist()


def score_classes(predictions: TargetPredictions, rows: np.ndarray) -> Scores:
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
        return scores | _score_uncalibrated(predictions, rows)
    for score in ("auroc", "auprc", "ece"):
        values = [scores[ScoreName(score, predictions.classes[number])] for number in classes]
        scores[ScoreName(score)] = float(np.mean(values))
    is_class = codes[:, None] == np.arange(probabilities.shape[1])
    scores[ScoreName("brier")] = float(((probabilities - is_class) ** 2).sum(axis=1).mean())
    decisions = class_decision_scores(codes, predictions.predicted[rows], np.array(classes))
    scores |= {ScoreName(n, "", MOST_PROBABLE): value for n, value in decisions.items()}
    return scores | _score_uncalibrated(predictions, rows)


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


def resample_classes(
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


def resample_calibration(predictions: TargetPredictions, draws: np.ndarray) -> ResampledScores:
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


def _score_uncalibrated(predictions: TargetPredictions, rows: np.ndarray) -> Scores:
    """Return calibration and Brier score before the temperature; nothing if it changed nothing."""
    if not predictions.has_temperature:
        return {}
    codes = predictions.codes[rows]
    probabilities = predictions.uncalibrated[rows]
    classes = scored_classes(predictions)
    scores: Scores = {}
    for number in classes:
        name = predictions.classes[number]
        line = calibration(codes == number, np.clip(probabilities[:, number], 0, 1))
        scores[ScoreName(f"calibration_slope{BEFORE}", name)] = line["slope"]
        scores[ScoreName(f"calibration_intercept{BEFORE}", name)] = line["intercept"]
        scores[ScoreName(f"ece{BEFORE}", name)] = line["ece"]
    is_class = codes[:, None] == np.arange(probabilities.shape[1])
    distances = (probabilities - is_class) ** 2
    if predictions.positive:
        brier = float(distances[:, classes[0]].mean())
        return scores | {ScoreName(f"brier{BEFORE}", predictions.positive): brier}
    return scores | {ScoreName(f"brier{BEFORE}"): float(distances.sum(axis=1).mean())}
