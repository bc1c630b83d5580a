"""Scores of a slide model on validation patients, and the temperature and threshold they give."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from stp._log import preview, warn
from stp.data.bags import Bags
from stp.data.samplers import SpotIndex
from stp.metrics import concordance
from stp.models.device import autocast
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideModelConfig, SlideTarget
from stp.train.labels import Labels
from stp.train.slide_task import SlidePrediction

LOG_TEMPERATURES = (-3.0, 3.0)  # from 0.05 to 20
TIE_BREAK = 1e-6  # weight of the loss, which decides between epochs of the same score
SCORES = {"classes": "auroc", "value": "mse", "survival": "c_index"}


@torch.inference_mode()
def predict_bags(
    model: SlideModel, bags: Bags, patients: np.ndarray, precision: str
) -> torch.Tensor:
    """Return the logits (n_patients, n_outputs) of patients, by number, on the CPU.

    The model is used on its device, with all tiles of one patient at a time.
    """
    device = model.feature_mean.device
    logits = []
    for patient in patients:
        batch = bags[SpotIndex(0, np.array([[patient, 0]]))]
        with autocast(device, precision):
            logits.append(model(batch["features"].to(device), batch["offsets"]))
    return torch.cat(logits).cpu()


def score_epoch(
    task: SlidePrediction,
    bags: Bags,
    labels: Sequence[Labels],
    patients: np.ndarray,
    precision: str,
) -> dict[str, float]:
    """Return losses and scores of validation patients, whose mean is "score".

    The score is the AUROC of classes, the negative squared error of values, and the concordance
    of survival. The loss decides between epochs with the same score.
    """
    logits = predict_bags(task.model, bags, patients, precision)
    batch = {name: values[patients] for name, values in bags.labels.items()}
    scores = {name: value.item() for name, value in task.losses(logits, batch).items()}
    predictions = task.model.to_predictions(logits).numpy()
    total = []
    first = 0
    for target, label in zip(task.model.config.targets, labels, strict=True):
        columns = predictions[:, first : first + len(target.columns)]
        first += len(target.columns)
        score = _score_target(target, label.of(patients), columns)
        if not np.isnan(score):
            scores[f"{SCORES[target.kind]}_{target.name}"] = score
            total.append(-score if target.kind == "value" else score)
    return {**scores, "score": float(np.mean(total)) - TIE_BREAK * min(scores["loss"], 100.0)}


def require_scores(
    targets: Sequence[SlideTarget], labels: Sequence[Labels], patients: np.ndarray
) -> None:
    """Warn if validation patients cannot score a target.

    Raises
    ------
    ValueError
        They can score no target.
    """
    rng = np.random.default_rng(0)
    without_score = []
    for target, label in zip(targets, labels, strict=True):
        random = rng.random((len(patients), len(target.columns)))
        if np.isnan(_score_target(target, label.of(patients), random)):
            without_score.append(target.name)
    if len(without_score) == len(targets):
        raise ValueError(
            f"{len(patients)} validation patients cannot score {preview(without_score)}: they need "
            "two classes, a value, or an event before the end of another observation; use a larger "
            "validation_share, or 0 to train all epochs"
        )
    if without_score:
        warn(
            f"the validation patients cannot score {preview(without_score)}, so the other targets "
            "choose the epoch; use a larger validation_share"
        )


def calibrate(
    targets: Sequence[SlideTarget], labels: Sequence[Labels], logits: Sequence[torch.Tensor]
) -> tuple[SlideTarget, ...]:
    """Return targets of classes with temperature and threshold from validation patients.

    Parameters
    ----------
    targets
        All targets of the model.
    labels
        Labels of the validation patients for each target.
    logits
        Logits of the validation patients (n_patients, n_outputs) for each target.
    """
    calibrated = []
    for target, label, values in zip(targets, labels, logits, strict=True):
        codes = label.values[label.has_label]
        labeled_logits = values.double().numpy()[label.has_label]
        if target.kind == "classes" and len(np.unique(codes)) > 1:
            target = replace(target, temperature=fit_temperature(labeled_logits, codes))
            if target.positive is not None:
                column = target.classes.index(target.positive)
                scores = _softmax(labeled_logits / target.temperature)[:, column]
                target = replace(target, threshold=choose_threshold(codes == column, scores))
        calibrated.append(target)
    return tuple(calibrated)


def add_median_risks(config: SlideModelConfig, predictions: np.ndarray) -> tuple[SlideTarget, ...]:
    """Return targets with the median risk of the training patients, for survival.

    Parameters
    ----------
    config
        Configuration with all targets.
    predictions
        Predictions of the training patients (n_patients, n_columns).
    """
    medians = dict(zip(config.columns, np.median(predictions, axis=0).tolist(), strict=True))
    return tuple(
        replace(target, median_risk=medians[target.columns[0]])
        if target.kind == "survival"
        else target
        for target in config.targets
    )


def fit_temperature(logits: np.ndarray, codes: np.ndarray) -> float:
    """Return the number by which to divide logits (n, n_classes) for the highest likelihood.

    Labels are smoothed by the number of patients of their class (Platt 1999). Without that, few
    patients whose classes are separated would make every probability 0 or 1.
    """
    from scipy.optimize import minimize_scalar

    n_classes = logits.shape[1]
    counts = np.bincount(codes, minlength=n_classes)[codes]
    truth = np.repeat(1 / (counts + n_classes), n_classes).reshape(-1, n_classes)
    truth[np.arange(len(codes)), codes] = (counts + 1) / (counts + n_classes)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        shifted = scaled - scaled.max(1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(1, keepdims=True))
        return -(truth * (shifted - log_sum)).sum()

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def choose_threshold(is_positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold with the highest sensitivity plus specificity (Youden 1950).

    It lies in the middle between the two scores that it separates. Of thresholds that are equally
    good, the one closest to 0.5 is taken.
    """
    from sklearn.metrics import roc_curve

    false_positives, true_positives, cuts = roc_curve(is_positive, scores, drop_intermediate=False)
    youden = (true_positives - false_positives)[1:]  # the first cut predicts no positive
    below = np.append(cuts[2:], 0.0)
    middles = (cuts[1:] + below) / 2
    best = middles[youden >= youden.max() - 1e-9]
    return float(best[np.abs(best - 0.5).argmin()])


def _score_target(target: SlideTarget, labels: Labels, predictions: np.ndarray) -> float:
    """Return AUROC, squared error or concordance of predictions (n, n_columns), or NaN."""
    from sklearn.metrics import roc_auc_score

    values = labels.values[labels.has_label]
    labeled = predictions[labels.has_label]
    if target.kind == "value":
        standardized = (labeled[:, 0] - target.value_mean) / target.value_sd
        return float(np.square(standardized - values).mean()) if len(values) else float("nan")
    if target.kind == "survival":
        return concordance(values, labels.events[labels.has_label], labeled[:, 0])
    scores = [
        roc_auc_score(values == code, labeled[:, code])
        for code in range(len(target.classes))
        if 0 < np.count_nonzero(values == code) < len(values)
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)
