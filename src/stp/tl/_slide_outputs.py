"""What the tiles of a slide contribute to, and on which side a prediction lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview
from stp.metrics._rank_tests import hazard_residuals, linear_rank_p
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideModelConfig, SlideTarget
from stp.tables.cohort import class_names
from stp.train.labels import as_numbers, read_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

HIGH, LOW, NEITHER = "high", "low", "neither"
MIN_LABELED = 6  # patients that a test of predictions needs


@dataclass(frozen=True)
class ExplainedOutput:
    """One output whose contributions are explained.

    Parameters
    ----------
    target
        The target.
    position
        Position of the target among those of the model.
    label
        The class, the name of the value, or "risk".
    weights
        Weight of each logit of the model (n_outputs,) in the output.
    """

    target: SlideTarget
    position: int
    label: str
    weights: np.ndarray


def require_contributions(models: Sequence[SlideModel]) -> None:
    """Raise ValueError if a model has no contributions of tiles."""
    for model in models:
        if model.config.pooling == "transformer":
            raise ValueError(
                f"{model.name or 'the slide model'} has pooling='transformer', whose logits are "
                "no sum over tiles, so tiles have no contributions; train one with "
                "pooling='attention'"
            )


def list_outputs(config: SlideModelConfig, target: str | None) -> list[ExplainedOutput]:
    """Return the outputs of all targets, or of one.

    Of two classes this is the positive one or else the first, against the other; of more classes
    each, against the mean of all. Of survival it is the mean log-odds over the intervals.

    Raises
    ------
    KeyError
        There is no such target.
    """
    names = [one.name for one in config.targets]
    if target is not None and target not in names:
        raise KeyError(f"the model has no target {target!r}; it has {preview(names, 10)}")
    n_logits = sum(one.n_outputs for one in config.targets)
    outputs = []
    first = 0
    for position, one in enumerate(config.targets):
        own = slice(first, first + one.n_outputs)
        first = own.stop
        if target not in (None, one.name):
            continue
        for label, own_weights in _list_weights(one):
            weights = np.zeros(n_logits)
            weights[own] = own_weights
            outputs.append(ExplainedOutput(one, position, label, weights))
    return outputs


def find_side(
    output: ExplainedOutput, models: Sequence[SlideModel], predictions: np.ndarray
) -> str:
    """Return "high" if a patient is predicted to be on the side of an output, else "low".

    The side is that of the predicted class, of the mean of the training values, or of the median
    risk of the training. A prediction that is equal to it, or a model that does not record it, is
    on "neither" side.

    Parameters
    ----------
    output
        The output.
    models
        The models that predicted the patient.
    predictions
        Predictions of the patient (n_columns,), the mean over the models.
    """
    targets = [model.config.targets[output.position] for model in models]
    first = sum(len(t.columns) for t in models[0].config.targets[: output.position])
    own = predictions[first : first + len(output.target.columns)]
    if output.target.kind == "classes":
        classes = list(output.target.classes)
        if output.target.positive is not None:
            threshold = np.mean([one.threshold for one in targets])
            is_high = own[classes.index(output.target.positive)] >= threshold
        else:
            is_high = classes[int(own.argmax())] == output.label
        return HIGH if is_high else LOW
    if output.target.kind == "value":
        cut = float(np.mean([one.value_mean for one in targets]))
    else:
        medians = [one.median_risk for one in targets]
        cut = np.nan if None in medians else float(np.mean(medians))  # type: ignore[arg-type]
    if own[0] > cut:
        return HIGH
    return LOW if own[0] < cut else NEITHER


def predictions_p(
    cohort: "AnnData",
    output: ExplainedOutput,
    patients: Sequence[str],
    scores: np.ndarray,
    strata: np.ndarray,
) -> tuple[float, int, str]:
    """Return how likely predictions of new patients rise with their labels by chance.

    Parameters
    ----------
    cohort
        Table with a row per slide, and labels.
    output
        The output.
    patients
        Ids of the patients that their models have never seen.
    scores
        Their value of the output (n_patients,), such as a log-odds.
    strata
        Number of the models that predicted them (n_patients,).

    Returns
    -------
    The one-sided p-value, the number of patients, and why there is none.
    """
    target = output.target
    columns = [target.name, *([target.event] if target.event else [])]
    missing = [name for name in columns if name not in cohort.obs]
    if missing:
        return np.nan, 0, f"the cohort has no column {missing[0]!r}"
    labels = _read_labels(cohort, output).reindex(list(patients)).to_numpy(dtype=float)
    is_known = np.isfinite(labels)
    n_patients = int(is_known.sum())
    if n_patients < MIN_LABELED:
        return np.nan, n_patients, f"{n_patients} patients have a label and are new to the model"
    p = linear_rank_p(scores[is_known], labels[is_known], strata[is_known])
    return p, n_patients, "" if np.isfinite(p) else "all have the same label"


def _read_labels(cohort: "AnnData", output: ExplainedOutput) -> "pd.Series":
    """Return a number per patient that rises with the output; NaN without a label."""
    import pandas as pd

    target = output.target
    labels = read_column(cohort, target.name)
    if target.kind == "classes":
        names = class_names(labels)
        is_known = names.isin(list(target.classes))
        return (names == output.label).astype(float).where(is_known)
    values = pd.Series(as_numbers(labels, target.name), index=labels.index)
    if target.event is None:
        return values
    events = pd.Series(
        as_numbers(read_column(cohort, target.event), target.event), index=labels.index
    )
    is_known = (values.notna() & events.notna()).to_numpy()
    residuals = np.full(len(values), np.nan)
    residuals[is_known] = hazard_residuals(values[is_known].to_numpy(), events[is_known].to_numpy())
    return pd.Series(residuals, index=labels.index)


def _list_weights(target: SlideTarget) -> list[tuple[str, np.ndarray]]:
    """Return the outputs of a target, and the weights of its logits in each."""
    n = target.n_outputs
    if target.kind == "value":
        return [(target.name, np.ones(1))]
    if target.kind == "survival":
        return [("risk", np.full(n, 1 / n))]
    if n == 2:
        positive = 0 if target.positive is None else target.classes.index(target.positive)
        return [(target.classes[positive], np.where(np.arange(2) == positive, 1.0, -1.0))]
    against_mean = np.eye(n) - 1 / n
    return list(zip(target.classes, against_mean, strict=True))
