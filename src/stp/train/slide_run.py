"""One run of a slide model: train on the bags of a cohort, calibrate, and save."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np

from stp._log import count, preview
from stp.data.bag_file import BagFile
from stp.data.bags import Bags
from stp.data.samplers import SpotSampler
from stp.models.device import build_with_seed
from stp.models.saved.pretrained import WEIGHTS, save_with_scores
from stp.models.saved.weights import read_tensors
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideModelConfig, SlideTarget
from stp.models.slide_patients import hash_patients
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.loop import Training, run_training
from stp.train.engine.run_dir import RunDir
from stp.train.slide_cohort import SlideCohort
from stp.train.slide_config import SlideConfig
from stp.train.slide_split import Split, check_split
from stp.train.slide_statistics import SlideStatistics
from stp.train.slide_task import SlidePrediction, balance_classes, label_tensors
from stp.train.slide_validation import (
    add_median_risks,
    calibrate,
    predict_bags,
    require_scores,
    score_epoch,
)
from stp.train.targets import Labels, Target

TRAINED = 1  # phase of a checkpoint: the weights are complete
FINISHED = 2  # temperature, threshold and median risk, too


@dataclass(frozen=True)
class SlidePlan:
    """What one model learns, and from whom.

    Parameters
    ----------
    targets
        Targets, described by the patients that the model sees.
    labels
        Labels of all patients for each target.
    split
        Which patients train and validate.
    """

    targets: tuple[SlideTarget, ...]
    labels: list[Labels]
    split: Split

    @classmethod
    def of(cls, cohort: SlideCohort, targets: Sequence[Target], split: Split) -> Self:
        """Describe targets by the patients of a split, and check that they can be learned."""
        is_seen = np.zeros(len(cohort.patients), bool)
        is_seen[split.seen] = True
        described = tuple(target.describe(cohort.table, is_seen) for target in targets)
        pairs = zip(targets, described, strict=True)
        labels = [target.read(cohort.table, description) for target, description in pairs]
        check_split(described, labels, split)
        if len(split.validation):
            require_scores(described, labels, split.validation)
        return cls(described, labels, split)

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies targets, labels and split in the settings of a run."""
        digest = hashlib.sha256()
        sides = (self.split.training, self.split.validation)
        arrays = [array for label in self.labels for array in vars(label).values()]
        for array in (*sides, *arrays):
            digest.update(np.ascontiguousarray(array).data)
        targets = [asdict(target) for target in self.targets]
        return {"targets": targets, "labels": digest.hexdigest()}


def as_targets(targets: "Target | Sequence[Target]") -> tuple[Target, ...]:
    """Return targets as a tuple, after a check of their types and names."""
    items = (targets,) if isinstance(targets, Target) else tuple(targets)
    wrong = [item for item in items if not isinstance(item, Target)]
    if wrong or not items:
        raise TypeError(
            f"targets are {preview(map(repr, wrong)) or 'empty'}; give stp.train.Classes, Value or "
            "Survival, or a list of them"
        )
    names = [item.column for item in items]
    if len(set(names)) < len(names):
        raise ValueError(f"targets name a column twice: {preview(names)}; give each only once")
    return items


def find_labeled(cohort: SlideCohort, targets: Sequence[Target]) -> tuple[np.ndarray, Labels]:
    """Return which patients have a label of any target, and all labels of the first target."""
    everyone = np.ones(len(cohort.patients), bool)
    labels = [
        target.read(cohort.table, target.describe(cohort.table, everyone)) for target in targets
    ]
    return np.flatnonzero(np.any([label.has_label for label in labels], axis=0)), labels[0]


def train_slides(
    run: RunDir,
    cohort: SlideCohort,
    plan: SlidePlan,
    config: SlideConfig,
    bags: tuple[BagFile, SlideStatistics],
) -> None:
    """Train a model to its end in an open run directory, from its last checkpoint."""
    file, _ = bags
    model = _build_model(run, cohort, plan, config, bags)
    labels = label_tensors(plan.targets, plan.labels)
    if run.checkpoint.phase < TRAINED:
        _train(
            run,
            model,
            plan,
            config,
            Bags(file, labels, max_tiles=config.max_tiles, seed=config.seed),
        )
    run.on_main_process(lambda: _calibrate(run, model, plan, config, Bags(file, labels)))
    run.finish(FINISHED)


def _build_model(
    run: RunDir,
    cohort: SlideCohort,
    plan: SlidePlan,
    config: SlideConfig,
    bags: tuple[BagFile, SlideStatistics],
) -> SlideModel:
    """Build the model that training starts from, with all that it says about its patients."""
    file, statistics = bags
    seen = plan.split.seen
    sizes = np.diff(file.offsets)[seen]
    model_config = SlideModelConfig(
        features=cohort.features,
        targets=plan.targets,
        hidden=config.hidden,
        attention=config.attention,
        gated=config.gated,
        pooling=config.pooling,
        dropout=config.dropout,
        standardize=config.standardize,
        bag_sizes=(int(sizes.min()), int(sizes.max())),
    )
    model = build_with_seed(config.seed, lambda: SlideModel(model_config))
    is_seen = np.zeros(len(file), bool)
    is_seen[seen] = True
    patient_of = np.searchsorted(file.offsets, file.slide_offsets[:-1], side="right") - 1
    far_distance = statistics.describe_to(model, is_seen[patient_of])
    model.config = replace(model_config, far_distance=far_distance)
    if run.processes.is_main:
        hashes = hash_patients((cohort.patients[patient] for patient in seen), cohort.salt)
        # Sorted, so that their order says nothing.
        model.config = replace(model.config, salt=cohort.salt, patient_hashes=tuple(sorted(hashes)))
    line = (
        f"fit_slides: {preview(target.name for target in plan.targets)} of "
        f"{count(len(plan.split.training), 'patient')} with "
        f"{count(len(plan.split.validation), 'validation patient')}"
    )
    model.card = replace(model.card, trained_on=(line,))
    return model


def _train(
    run: RunDir, model: SlideModel, plan: SlidePlan, config: SlideConfig, dataset: Bags
) -> None:
    """Train the weights."""
    split = plan.split
    size = run.processes.size
    batch_size = min(config.batch_size * size, max(1, len(split.training) // size) * size)
    rows = [np.array([], np.int64)] * len(dataset.file)
    for patient in split.training:
        rows[patient] = np.zeros(1, np.int64)
    class_weights = {}
    if config.balanced:
        is_training = np.isin(np.arange(len(dataset.file)), split.training)
        class_weights = {
            target.name: balance_classes(label, is_training, target.n_outputs)
            for target, label in zip(plan.targets, plan.labels, strict=True)
            if target.kind == "classes"
        }
    task = SlidePrediction(model, class_weights)
    validate = None
    if len(split.validation):
        validate = partial(
            score_epoch,
            task,
            Bags(dataset.file, dataset.labels),
            plan.labels,
            split.validation,
            config.precision,
        )
    run_training(
        Training(
            task=task,
            dataset=dataset,
            sampler=SpotSampler(rows, batch_size, config.seed),
            plan=BatchPlan(config.epochs, batch_size, accumulate=1),
            config=config,
            run=run,
            save_model=partial(save_with_scores, model, run.path),
            validate=validate,
            patience=config.patience,
        )
    )


def _calibrate(
    run: RunDir, model: SlideModel, plan: SlidePlan, config: SlideConfig, bags: Bags
) -> None:
    """Add temperature, threshold and median risk to the saved model of the best epoch.

    Only its weights are read, so that a call that was stopped can be repeated.
    """
    model.load_state_dict(read_tensors(run.path / WEIGHTS))
    model.to(run.processes.device).eval()
    validation = plan.split.validation
    lines = [line for line in run.metrics() if line["split"] == "validation"]
    scores: dict[str, float] = {}
    if len(validation):
        best = max(lines, key=lambda line: line["score"])
        scores = {
            name: value
            for name, value in best.items()
            if name not in ("phase", "epoch", "step", "split")
        }
        logits = model.split_targets(predict_bags(model, bags, validation, config.precision))
        labels = [label.of(validation) for label in plan.labels]
        model.config = replace(model.config, targets=calibrate(plan.targets, labels, logits))
    if any(target.kind == "survival" for target in model.config.targets):
        training = predict_bags(model, bags, plan.split.training, config.precision)
        risks = model.to_predictions(training).double().numpy()
        model.config = replace(model.config, targets=add_median_risks(model.config, risks))
    save_with_scores(model.cpu(), run.path, scores)
