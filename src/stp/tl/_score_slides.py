"""Score predictions of patients, with intervals by resampling patients."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stp.metrics._checks import check_level
from stp.metrics._resample import percentile_interval
from stp.tables import keys
from stp.tables.table import record, table_to_annotate
from stp.tl._patient_predictions import TargetPredictions, read_predictions
from stp.tl._score_curves import count_confusion, draw_curves
from stp.tl._score_names import (
    HIGH_RISK,
    MIN_CASES,
    MOST_PROBABLE,
    STORED,
    ScoreName,
    case_counts,
    n_cases,
)
from stp.tl._score_notes import list_notes
from stp.tl._target_scores import (
    Resampling,
    TargetScores,
    compare_groups,
    draw_patients,
    score_target,
)

if TYPE_CHECKING:
    from anndata import AnnData

MAX_UNDEFINED = 0.01  # share of resamples without a value up to which there is an interval


def score_slides(
    cohort: "AnnData",
    *,
    key: str = keys.SLIDES,
    fold_key: str = keys.FOLD,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    key_added: str = keys.SLIDE_SCORES,
    copy: bool = False,
) -> "AnnData | None":
    """Score the predictions of patients, with intervals by resampling patients.

    A row is scored per patient, not per slide. In a cross-validation each score is the mean over
    folds of the score of the fold, because the order of patients of different models does not
    compare. The score of all patients together is the column `pooled`. Calibration is always of all
    patients, because a fold has too few. Patients that all models predicted, such as those of an
    external cohort, are one group.

    Intervals are percentiles of the same mean over resamples: patients are drawn with replacement
    within fold and class (:func:`stp.metrics.resample`). There is none with fewer than 10
    positives, negatives or events. That of the hazard ratio is after Wald.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    key
        Name of the prediction.
    fold_key
        Column of `obs` with the number of the fold, written by :func:`stp.tl.assign_folds`.
    n_resamples
        Number of resamples.
    level
        Level of the intervals, such as 0.95.
    seed
        Random seed for the resamples.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `cohort.uns['stp_slide_scores' | key_added]` : dict
        `params`, and:

        - `scores`: a row per target and score with `class`, the class that is scored against all
          others, or ""; `decision`, how classes were chosen; `value`; `low`, `high`; `pooled`;
          `n_patients`, `n_positives`, `n_events`; `note`. Scores are those of
          :func:`stp.metrics.binary_scores` for the positive class or else
          :func:`stp.metrics.multiclass_scores`, :func:`stp.metrics.calibration`,
          :func:`stp.metrics.value_scores`, :func:`stp.metrics.concordance`,
          :func:`stp.metrics.uno_concordance` and :func:`stp.metrics.compare_risk_groups`. Risk is
          high above the median of the training, and the hazard ratio and its p-value are stratified
          by fold. Brier score and calibration are also given before the temperature, if it changed
          them.
        - `folds`: the value of each score in each fold.
        - `curves`: for each target `roc` and `precision_recall`, means over folds with bands;
          `calibration`, bins of patients of all folds; or `kaplan_meier`.
        - `confusion`: for each target of classes `classes`, `counts` (n_classes, n_classes) by
          label (rows) and prediction (columns), and `threshold`, the mean over patients.
        - `patients`: for each target `n_scored`, `n_without_label` and `n_without_prediction`.

    Raises
    ------
    KeyError
        There is no prediction, no target has labels, or there are no folds.
    ValueError
        No patient has a label and a prediction, slides of a patient differ, or a number is out of
        range.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/cv", targets=target, config=config)
    >>> stp.tl.predict_slides(cohort, "runs/cv")
    >>> stp.tl.score_slides(cohort)
    >>> cohort.uns["stp_slide_scores"]["scores"]["score"].tolist()[:2]
    ['auroc', 'auprc']
    """
    import pandas as pd

    adata = table_to_annotate(cohort, keys.TABLE, copy)
    check_level(level)
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")
    resampling = Resampling(n_resamples, level, seed)
    rows: list[dict[str, Any]] = []
    folds: list[dict[str, Any]] = []
    curves = {}
    confusion = {}
    n_patients = {}
    for predictions in read_predictions(adata, key, fold_key):
        draws = draw_patients(predictions, resampling)
        scores = score_target(predictions, draws, level=level)
        rows += _score_rows(predictions, scores, level)
        folds += _fold_rows(predictions, scores)
        curves[predictions.name] = draw_curves(predictions, draws, level)
        if predictions.kind == "classes":
            confusion[predictions.name] = _confusion_entry(predictions)
        n_patients[predictions.name] = {
            "n_scored": len(predictions.values),
            "n_without_label": predictions.n_without_label,
            "n_without_prediction": predictions.n_without_prediction,
        }
    params = {
        "key": key,
        "fold_key": fold_key,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
    }
    record(
        adata,
        key_added,
        params,
        scores=pd.DataFrame(rows),
        folds=pd.DataFrame(folds),
        curves=curves,
        confusion=confusion,
        patients=n_patients,
    )
    return adata if copy else None


def _score_rows(
    predictions: TargetPredictions, scores: TargetScores, level: float
) -> list[dict[str, Any]]:
    return [
        {
            **_row_name(predictions, name),
            **_estimate(predictions, scores, name, level),
            "pooled": scores.pooled[name],
            **case_counts(predictions, name),
            "note": "; ".join(list_notes(predictions, scores, name)),
        }
        for name in scores.pooled
    ]


def _row_name(predictions: TargetPredictions, name: ScoreName) -> dict[str, Any]:
    return {
        "target": predictions.name,
        "score": name.score,
        "class": name.class_name,
        "decision": name.decision,
    }


def _estimate(
    predictions: TargetPredictions, scores: TargetScores, name: ScoreName, level: float
) -> dict[str, float]:
    """Return the value of a score and its interval."""
    has_interval = n_cases(predictions, name) >= MIN_CASES
    if name.score in HIGH_RISK:
        everyone = np.arange(len(predictions.values))
        groups = compare_groups(predictions, everyone, is_stratified=True, level=level)
        is_ratio = has_interval and name.score == "hazard_ratio"
        return {
            "value": groups[name.score],
            "low": groups["low"] if is_ratio else np.nan,
            "high": groups["high"] if is_ratio else np.nan,
        }
    low = high = np.nan
    if has_interval and name in scores.resampled:
        values = scores.resampled[name]
        is_defined = np.isfinite(values)
        if 1 - is_defined.mean() <= MAX_UNDEFINED:
            low, high = percentile_interval(values[is_defined], level)
    return {"value": scores.estimate(name), "low": low, "high": high}


def _fold_rows(predictions: TargetPredictions, scores: TargetScores) -> list[dict[str, Any]]:
    return [
        {
            **_row_name(predictions, name),
            "fold": fold,
            "value": value,
            "n_patients": int((predictions.groups == fold).sum()),
        }
        for fold, values in scores.folds.items()
        for name, value in values.items()
    ]


def _confusion_entry(predictions: TargetPredictions) -> dict[str, Any]:
    return {
        "classes": list(predictions.classes),
        "counts": count_confusion(predictions),
        "decision": STORED if predictions.positive else MOST_PROBABLE,
        "threshold": float(np.mean(predictions.thresholds)),
    }
