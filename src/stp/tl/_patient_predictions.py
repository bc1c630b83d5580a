"""Predictions of patients and their labels, read from the slots of a cohort."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview, warn
from stp.models.slide_config import SlideTarget
from stp.tables import keys
from stp.tables.cohort import class_names, differing_patients, patient_ids, patient_labels
from stp.tables.table import require
from stp.train import targets as kinds

if TYPE_CHECKING:
    from anndata import AnnData

MAKER = "stp.tl.predict_slides(cohort, models)"
NO_CLASS = -1
ALL = "all"  # name of the group of patients that all models predicted


@dataclass(frozen=True)
class TargetPredictions:
    """The patients that have a label and a prediction for a target.

    Parameters
    ----------
    name
        Name of the target.
    kind
        "classes", "value" or "survival".
    classes
        Names of the classes.
    positive
        Name of the positive class; "" without.
    event
        Column of the events, for survival.
    patients
        Ids of the patients (n,).
    groups
        Name of the fold of each patient (n,), or "all" if all models predicted it.
    values
        Number of the class, value or time of each patient (n,).
    events
        Whether the event was observed (n,), for survival.
    outputs
        Probabilities, value or risk of each patient (n, n_outputs).
    uncalibrated
        The same before the temperature.
    predicted
        Number of the predicted class of each patient (n,).
    thresholds
        Threshold of the probability of the positive class, or of the risk (n,); NaN without.
    n_without_label
        Number of patients that are not scored because they have no label.
    n_without_prediction
        Number of patients that have a label and no prediction.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    positive: str
    event: str
    patients: np.ndarray
    groups: np.ndarray
    values: np.ndarray
    events: np.ndarray
    outputs: np.ndarray
    uncalibrated: np.ndarray
    predicted: np.ndarray
    thresholds: np.ndarray
    n_without_label: int
    n_without_prediction: int

    @property
    def group_names(self) -> list[str]:
        """Names of the groups, folds in the order of their numbers."""
        return sorted(set(self.groups), key=lambda name: (len(name), name))

    @property
    def has_temperature(self) -> bool:
        """Whether a temperature changed the probabilities."""
        return not np.allclose(self.outputs, self.uncalibrated, atol=1e-6)

    @property
    def codes(self) -> np.ndarray:
        """Number of the class of each patient (n,), and whether the event was observed."""
        if self.kind == "classes":
            return self.values.astype(int)
        return self.events.astype(int)


def read_predictions(cohort: "AnnData", key: str, fold_key: str) -> list[TargetPredictions]:
    """Return the predictions of each target that has labels.

    Raises
    ------
    KeyError
        There is no prediction, no target has labels, or there are no folds.
    ValueError
        Slides of a patient differ, no patient has both label and prediction, or patients of a
        cross-validation have no fold.
    """
    details = require(cohort, "uns", key, MAKER)
    outputs = np.asarray(require(cohort, "obsm", key, MAKER), np.float64)
    names = [str(name) for name in details["outputs"]]
    if outputs.ndim != 2 or outputs.shape[1] != len(names):
        raise ValueError(
            f"obsm[{key!r}] has shape {outputs.shape}, and uns[{key!r}]['outputs'] has "
            f"{len(names)} names; run {MAKER} again"
        )
    uncalibrated = np.asarray(cohort.obsm.get(keys.uncalibrated(key), outputs), np.float64)
    is_first = _first_rows(cohort)
    _require_same_outputs(cohort, outputs, key)
    groups = _read_groups(cohort, details, key, fold_key)
    targets = [_describe(str(name), entry) for name, entry in details["targets"].items()]
    targets = _sort(targets, names, key)
    present = _with_labels(cohort, targets)
    predictions = []
    first = 0
    for target in targets:
        columns = slice(first, first + len(target.columns))
        first = columns.stop
        if target in present:
            own = (outputs[is_first, columns], uncalibrated[is_first, columns])
            predictions.append(_read_target(cohort, key, target, own, groups, len(targets)))
    return predictions


def _describe(name: str, entry: Mapping[str, Any]) -> SlideTarget:
    """Return the target that a prediction records."""
    if entry["kind"] == "classes":
        classes = tuple(map(str, entry["classes"]))
        return SlideTarget("classes", name, classes, str(entry["positive"]) or None)
    if entry["kind"] == "survival":
        return SlideTarget("survival", name, event=str(entry["event"]), edges=(1.0,))
    return SlideTarget("value", name)


def _sort(targets: list[SlideTarget], names: list[str], key: str) -> list[SlideTarget]:
    """Return targets in the order of the outputs, which files do not keep."""
    if len(targets) == 1:
        return targets
    positions = {}
    for target in targets:
        columns = list(target.columns)
        starts = [
            start for start in range(len(names)) if names[start : start + len(columns)] == columns
        ]
        if not starts:
            raise ValueError(
                f"uns[{key!r}]['outputs'] has no columns {columns} of the target {target.name!r}; "
                f"run {MAKER} again"
            )
        positions[target.name] = starts[0]
    return sorted(targets, key=lambda target: positions[target.name])


def _with_labels(cohort: "AnnData", targets: list[SlideTarget]) -> list[SlideTarget]:
    """Return the targets whose columns the cohort has; warn of the others."""
    present = [target for target in targets if set(_columns(target)) <= set(cohort.obs)]
    missing = [target.name for target in targets if target not in present]
    if not present:
        columns = [column for target in targets for column in _columns(target)]
        raise KeyError(
            f"the cohort has no labels to score: obs lacks {preview(columns)}; add these columns, "
            "for example with stp.io.read_cohort(slides, clinical=)"
        )
    if missing:
        warn(f"obs has no labels of {preview(missing)}, so this target is not scored")
    return present


def _columns(target: SlideTarget) -> tuple[str, ...]:
    return (target.name,) if target.event is None else (target.name, target.event)


def _first_rows(cohort: "AnnData") -> np.ndarray:
    """Return the first row of each patient, in the order of the rows."""
    ids = patient_ids(cohort)
    return np.sort(np.unique(ids.astype(str), return_index=True)[1])


def _require_same_outputs(cohort: "AnnData", outputs: np.ndarray, key: str) -> None:
    import pandas as pd

    ids = patient_ids(cohort)
    for values in outputs.T:
        different = differing_patients(pd.Series(values), ids)
        if len(different):
            raise ValueError(
                f"the slides of patient {different[0]!r} have different predictions in "
                f"obsm[{key!r}]; run {MAKER} again"
            )


def _read_groups(
    cohort: "AnnData", details: Mapping[str, Any], key: str, fold_key: str
) -> np.ndarray:
    """Return the name of the fold of each patient, or "all" if all models predicted it.

    Patients without a name, "", are not scored: they are new, and the others are of a
    cross-validation.
    """
    require(cohort, "obs", keys.n_models(key), MAKER)
    n_models = patient_labels(cohort, keys.n_models(key)).to_numpy(dtype=int)
    is_new = n_models == len(details["models"]["names"])
    if is_new.all():
        return np.full(len(n_models), ALL, dtype=object)
    if fold_key not in cohort.obs:
        raise KeyError(
            f"adata.obs[{fold_key!r}] is missing, and patients were predicted by models of folds; "
            "pass fold_key= the column of the cross-validation"
        )
    folds = class_names(patient_labels(cohort, fold_key))
    has_fold = folds.notna().to_numpy() & ~folds.astype(str).str.startswith("-").to_numpy()
    if (~has_fold & ~is_new).any():
        raise ValueError(
            f"{count((~has_fold & ~is_new).sum(), 'patient')} predicted by models of folds have no "
            f"fold in obs[{fold_key!r}], such as {folds.index[~has_fold & ~is_new][0]!r}; "
            "predict again with the folds of the cross-validation"
        )
    if is_new.any():
        warn(
            f"{count(is_new.sum(), 'patient')} predicted by all models are not scored with the "
            f"{(~is_new).sum():,} of the cross-validation; score them in a separate cohort"
        )
    return np.where(is_new, "", folds.astype(str).to_numpy()).astype(object)


def _read_target(
    cohort: "AnnData",
    key: str,
    target: SlideTarget,
    both_outputs: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
    n_targets: int,
) -> TargetPredictions:
    """Return the patients that have a label and a prediction for a target.

    `both_outputs` are the outputs (n_patients, n_outputs) after and before the temperature.
    """
    outputs, uncalibrated = both_outputs
    labels = _reader(target).read(cohort, target)
    is_grouped = groups != ""
    is_predicted = np.isfinite(outputs).all(axis=1)
    is_scored = labels.has_label & is_predicted & is_grouped
    if not is_scored.any():
        columns = " and ".join(f"obs[{column!r}]" for column in _columns(target))
        raise ValueError(
            f"no patient has both a label in {columns} and a prediction in obsm[{key!r}]"
        )
    column = keys.label(key, target.name, n_targets)
    ids = patient_ids(cohort)[_first_rows(cohort)]
    return TargetPredictions(
        name=target.name,
        kind=target.kind,
        classes=target.classes,
        positive=target.positive or "",
        event=target.event or "",
        patients=ids[is_scored],
        groups=groups[is_scored],
        values=labels.values[is_scored],
        events=labels.events[is_scored],
        outputs=outputs[is_scored],
        uncalibrated=uncalibrated[is_scored],
        predicted=_read_classes(cohort, column, target)[is_scored],
        thresholds=_read_thresholds(cohort, column)[is_scored],
        n_without_label=int((is_grouped & ~labels.has_label).sum()),
        n_without_prediction=int((is_grouped & labels.has_label & ~is_predicted).sum()),
    )


def _reader(target: SlideTarget) -> kinds.Target:
    if target.kind == "classes":
        return kinds.Classes(target.name, target.classes)
    if target.event is not None:
        return kinds.Survival(target.name, target.event)
    return kinds.Value(target.name)


def _read_classes(cohort: "AnnData", column: str, target: SlideTarget) -> np.ndarray:
    """Return the number of the predicted class of each patient; -1 without."""
    if target.kind != "classes":
        return np.full(len(_first_rows(cohort)), NO_CLASS)
    require(cohort, "obs", column, MAKER)
    codes = {name: code for code, name in enumerate(target.classes)}
    names = class_names(patient_labels(cohort, column))
    return np.array([codes.get(name, NO_CLASS) for name in names])


def _read_thresholds(cohort: "AnnData", column: str) -> np.ndarray:
    """Return the threshold of each patient; NaN without."""
    if keys.threshold(column) not in cohort.obs:
        return np.full(len(_first_rows(cohort)), np.nan)
    return patient_labels(cohort, keys.threshold(column)).to_numpy(dtype=np.float64)
