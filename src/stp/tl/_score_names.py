"""The names of scores of slides, and how many patients decide if a score has an interval."""

from typing import NamedTuple

import numpy as np

from stp.tl._patient_predictions import TargetPredictions

STORED = "threshold"  # decision by the threshold that the models carry
HALF = "0.5"  # decision by a probability of 0.5
MOST_PROBABLE = "most probable"
BEFORE = "_before_temperature"  # end of the names of scores of uncalibrated probabilities
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


def is_calibration(name: ScoreName) -> bool:
    """Return whether a score is of the calibration, which is that of all patients together."""
    return name.score.removesuffix(BEFORE) in CALIBRATION


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


def case_counts(predictions: TargetPredictions, name: ScoreName) -> dict[str, int]:
    """Return numbers of patients, positives and events; -1 for what a target does not have."""
    n_positives = -1
    if name.class_name:
        n_positives = int((predictions.codes == predictions.classes.index(name.class_name)).sum())
    is_survival = predictions.kind == "survival"
    return {
        "n_patients": len(predictions.values),
        "n_positives": n_positives,
        "n_events": int(predictions.events.sum()) if is_survival else -1,
    }
