"""Compare predictions of the same patients, by resampling patients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count
from stp.metrics._checks import check_level
from stp.metrics._resample import percentile_interval, two_sided_p
from stp.tables import keys as slots
from stp.tables.table import as_list, record, table_to_annotate
from stp.tl._patient_predictions import TargetPredictions, read_predictions
from stp.tl._score_names import HIGH_RISK, MIN_CASES, ScoreName, case_counts, n_cases
from stp.tl._score_slides import MAX_UNDEFINED
from stp.tl._target_scores import Resampling, TargetScores, draw_patients, score_target

if TYPE_CHECKING:
    from anndata import AnnData


def compare_slides(
    cohort: "AnnData",
    keys: Sequence[str],
    *,
    fold_key: str = slots.FOLD,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    key_added: str = slots.SLIDE_COMPARISON,
    copy: bool = False,
) -> "AnnData | None":
    """Compare predictions of the same patients: the difference of each score, its interval and p.

    The first prediction is the baseline of all others. Each resample draws the same patients for
    all predictions, within fold and class: a paired bootstrap. Values are those of
    :func:`stp.tl.score_slides`.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    keys
        Names of two or more predictions; the first one is the baseline.
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

    `cohort.uns['stp_slide_comparison' | key_added]` : dict
        `params`; `scores`, a row per target, score and prediction with `class` and `decision` as
        in :func:`stp.tl.score_slides`; `prediction` and `baseline`, names of the predictions;
        `value`, `value_baseline` and their `difference` with `low`, `high` and `p`; `n_patients`,
        `n_positives`, `n_events`; `note`. `p` is twice the smaller share of resamples on one side
        of 0, and not corrected for the number of rows.

    Raises
    ------
    KeyError
        There is no prediction, no target has labels, or there are no folds.
    ValueError
        There is only one prediction, or predictions have other targets, patients or folds.

    Examples
    --------
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> mean = stp.train.SlideConfig(epochs=2, hidden=16, attention=8, pooling="mean")
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/cv", targets=target, config=config)
    >>> stp.tl.predict_slides(cohort, models)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/mean", targets=target, config=mean)
    >>> stp.tl.predict_slides(cohort, models, key_added="mean")
    >>> stp.tl.compare_slides(cohort, ["mean", "stp_slides"])
    >>> cohort.uns["stp_slide_comparison"]["scores"]["prediction"].unique().tolist()
    ['stp_slides']
    """
    import pandas as pd

    adata = table_to_annotate(cohort, slots.TABLE, copy)
    check_level(level)
    names = as_list(keys)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"keys are {names}; name two or more predictions, each once")
    resampling = Resampling(n_resamples, level, seed)
    read = {name: read_predictions(adata, name, fold_key) for name in names}
    baseline_name = names[0]
    rows: list[dict[str, Any]] = []
    for number, baseline in enumerate(read[baseline_name]):
        draws = draw_patients(baseline, resampling)
        baseline_scores = score_target(baseline, draws)
        for name in names[1:]:
            _require_same_targets(read[baseline_name], read[name], baseline_name, name)
            predictions = read[name][number]
            _require_same_patients(baseline, predictions, baseline_name, name)
            scores = score_target(predictions, draws)
            for row in _difference_rows(predictions, scores, baseline_scores, level):
                rows.append({**row, "prediction": name, "baseline": baseline_name})
    first_columns = ["target", "score", "class", "decision", "prediction", "baseline"]
    table = pd.DataFrame(rows)
    table = table[first_columns + [name for name in table if name not in first_columns]]
    params = {
        "keys": names,
        "fold_key": fold_key,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
    }
    record(adata, key_added, params, scores=table)
    return adata if copy else None


def _require_same_targets(
    baseline: list[TargetPredictions],
    others: list[TargetPredictions],
    baseline_name: str,
    name: str,
) -> None:
    """Raise ValueError if two predictions have other targets or classes."""
    texts = [
        [f"{one.name} ({one.kind}: {', '.join(one.classes)}; {one.positive})" for one in targets]
        for targets in (baseline, others)
    ]
    if texts[0] != texts[1]:
        raise ValueError(
            f"{baseline_name!r} and {name!r} predict different targets: {texts[0]} and {texts[1]}; "
            "compare models with the same targets, classes and positive class"
        )


def _require_same_patients(
    baseline: TargetPredictions, others: TargetPredictions, baseline_name: str, name: str
) -> None:
    """Raise ValueError if two predictions are of other patients or folds."""
    first = dict(zip(baseline.patients, baseline.groups, strict=True))
    second = dict(zip(others.patients, others.groups, strict=True))
    different = sorted(set(first) ^ set(second))
    if different:
        raise ValueError(
            f"{count(len(different), 'patient')} with only one of the predictions "
            f"{baseline_name!r} and {name!r}, such as {different[0]!r}; "
            "predict the same patients with both"
        )
    moved = [patient for patient in first if first[patient] != second[patient]]
    if moved:
        raise ValueError(
            f"patient {moved[0]!r} was predicted in fold {first[moved[0]]!r} of {baseline_name!r} "
            f"and in fold {second[moved[0]]!r} of {name!r}; cross-validate both with the same folds"
        )


def _difference_rows(
    predictions: TargetPredictions, scores: TargetScores, baseline: TargetScores, level: float
) -> list[dict[str, Any]]:
    """Return a row for each score that resamples have."""
    rows = []
    for name in scores.pooled:
        if name.score in HIGH_RISK:
            continue
        interval, note = _interval(predictions, name, scores, baseline, level)
        rows.append(
            {
                "target": predictions.name,
                "score": name.score,
                "class": name.class_name,
                "decision": name.decision,
                "value": scores.estimate(name),
                "value_baseline": baseline.estimate(name),
                "difference": scores.estimate(name) - baseline.estimate(name),
                **interval,
                **case_counts(predictions, name),
                "note": note,
            }
        )
    return rows


def _interval(
    predictions: TargetPredictions,
    name: ScoreName,
    scores: TargetScores,
    baseline: TargetScores,
    level: float,
) -> tuple[dict[str, float], str]:
    """Return interval and p of a difference, and a note if there are none."""
    nothing = dict.fromkeys(("low", "high", "p"), np.nan)
    if n_cases(predictions, name) < MIN_CASES:
        return nothing, f"no interval: fewer than {MIN_CASES} cases"
    if name not in scores.resampled or name not in baseline.resampled:
        return nothing, "no interval: this score is not resampled or not defined"
    if scores.undefined_folds(name) != baseline.undefined_folds(name):
        return nothing, "no interval: the score is not defined in the same folds"
    differences = scores.resampled[name] - baseline.resampled[name]
    is_defined = np.isfinite(differences)
    if 1 - is_defined.mean() > MAX_UNDEFINED:
        return nothing, f"no interval: not defined in {count((~is_defined).sum(), 'resample')}"
    low, high = percentile_interval(differences[is_defined], level)
    return {"low": low, "high": high, "p": two_sided_p(differences[is_defined])}, ""
