"""Curves of scored predictions: ROC, precision-recall, calibration and survival."""

from typing import TYPE_CHECKING

import numpy as np

from stp.metrics import kaplan_meier
from stp.metrics._calibration import equal_bins
from stp.metrics._curves import precision_points, roc_points
from stp.tl._class_scores import scored_classes
from stp.tl._patient_predictions import TargetPredictions
from stp.tl._score_names import MIN_CASES, ScoreName, n_cases

if TYPE_CHECKING:
    import pandas as pd

N_POINTS = 201  # of a curve
N_BINS = 10  # of calibration
GROUPS = ("low", "high")  # of risk


def draw_curves(
    predictions: TargetPredictions, draws: np.ndarray, level: float
) -> "dict[str, pd.DataFrame]":
    """Return the curves of a target by name; values have none.

    Parameters
    ----------
    predictions
        Patients with labels and predictions.
    draws
        How often each patient is drawn in each resample (n_resamples, n).
    level
        Level of the bands.
    """
    if predictions.kind == "survival":
        curves = survival_curves(predictions, level)
        return {} if curves is None else {"kaplan_meier": curves}
    if predictions.kind == "value":
        return {}
    return {
        "roc": _mean_curves(predictions, draws, level, is_roc=True),
        "precision_recall": _mean_curves(predictions, draws, level, is_roc=False),
        "calibration": _calibration_bins(predictions, level),
    }


def _mean_curves(
    predictions: TargetPredictions, draws: np.ndarray, level: float, *, is_roc: bool
) -> "pd.DataFrame":
    """Return the mean curve over folds of each class, with pointwise bands from resamples."""
    import pandas as pd

    points = roc_points if is_roc else precision_points
    x_name, y_name = ("false_positive_share", "sensitivity") if is_roc else ("recall", "precision")
    grid = np.linspace(0, 1, N_POINTS)[0 if is_roc else 1 :]
    tables = []
    for number in scored_classes(predictions):
        is_positive = predictions.codes == number
        scores = predictions.outputs[:, number]
        folds = [
            rows
            for rows in (predictions.groups == name for name in predictions.group_names)
            if 0 < is_positive[rows].sum() < rows.sum()
        ]
        if not folds:
            continue
        weights = np.concatenate([np.ones_like(draws[:1]), draws])
        curves = np.mean(
            [points(is_positive[rows], scores[rows], weights[:, rows], grid) for rows in folds],
            axis=0,
        )
        name = predictions.classes[number]
        has_band = n_cases(predictions, ScoreName("auroc", name)) >= MIN_CASES
        low, high = np.quantile(curves[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
        columns = {
            "class": np.full(len(grid), name, dtype=object),
            x_name: grid,
            y_name: curves[0],
            "low": low if has_band else np.nan,
            "high": high if has_band else np.nan,
        }
        tables.append(pd.DataFrame(columns))
    if not tables:
        return pd.DataFrame(columns=["class", x_name, y_name, "low", "high"], dtype=np.float64)
    return pd.concat(tables, ignore_index=True)


def _calibration_bins(predictions: TargetPredictions, level: float) -> "pd.DataFrame":
    """Return mean probability and share of positives of bins with equally many patients."""
    import pandas as pd
    from statsmodels.stats.proportion import proportion_confint

    rows = []
    for number in scored_classes(predictions):
        is_positive = predictions.codes == number
        probabilities = predictions.outputs[:, number]
        for bin_rows in equal_bins(probabilities, N_BINS):
            n_positive = int(is_positive[bin_rows].sum())
            low, high = proportion_confint(
                n_positive, len(bin_rows), alpha=1 - level, method="wilson"
            )
            rows.append(
                {
                    "class": predictions.classes[number],
                    "predicted": probabilities[bin_rows].mean(),
                    "observed": n_positive / len(bin_rows),
                    "low": low,
                    "high": high,
                    "n_patients": len(bin_rows),
                }
            )
    return pd.DataFrame(rows)


def survival_curves(predictions: TargetPredictions, level: float) -> "pd.DataFrame | None":
    """Return Kaplan-Meier curves below and above the training median; None if it is unknown."""
    import pandas as pd

    if not np.isfinite(predictions.thresholds).all():
        return None
    is_high = predictions.outputs[:, 0] > predictions.thresholds
    tables = []
    for group, rows in zip(GROUPS, (~is_high, is_high), strict=True):
        if rows.any():
            curve = kaplan_meier(predictions.values[rows], predictions.events[rows], level=level)
            names = np.full(len(curve["time"]), group, dtype=object)
            tables.append(pd.DataFrame({"risk": names, **curve}))
    return pd.concat(tables, ignore_index=True)


def count_confusion(predictions: TargetPredictions) -> np.ndarray:
    """Return the number of patients by class (rows) and predicted class (columns)."""
    from sklearn.metrics import confusion_matrix

    numbers = np.arange(len(predictions.classes))
    return confusion_matrix(predictions.codes, predictions.predicted, labels=numbers)
