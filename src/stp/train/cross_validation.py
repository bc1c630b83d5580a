"""Cross-validate slide models: a model per fold, whose patients it never reads."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._atomic import write_atomically
from stp._log import logger, preview
from stp._progress import time_left
from stp.models.slide import SlideModel
from stp.tables import keys
from stp.tables.cohort import class_names, patient_labels
from stp.train.engine.processes import distributed
from stp.train.engine.run_dir import RunDir, run_settings
from stp.train.slide_cohort import SlideCohort
from stp.train.slide_config import SlideConfig
from stp.train.slide_run import (
    FINISHED,
    SlidePlan,
    as_targets,
    find_labeled,
    train_slides,
)
from stp.train.slide_split import draw_split
from stp.train.slides import check_share
from stp.train.targets import Classes, Target

if TYPE_CHECKING:
    from anndata import AnnData

NO_FOLD = "-1"  # of patients without a label
FOLDS = "folds.csv"
MODELS = "models.json"


def cross_validate_slides(
    cohort: "AnnData",
    output_dir: str | Path,
    *,
    targets: Target | Sequence[Target],
    fold_key: str = keys.FOLD,
    config: SlideConfig = SlideConfig(),
    validation_share: float = 0.2,
    resume: bool = True,
) -> list[SlideModel]:
    """Fit a slide model for each fold, on the patients of all other folds.

    A fold never decides anything about its model: epoch, temperature and threshold come from
    validation patients among the others. A call that continues does not train finished folds again.
    Call :func:`stp.tl.predict_slides` with `output_dir` to
    predict each patient by the model that has never seen it.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    output_dir
        Folder of all runs. It has a run directory for each fold (`fold_0`, ...), `folds.csv` with
        the side of each patient in each fold, and `models.json`, which lists the runs.
    targets
        What to predict: :class:`stp.train.Classes`, :class:`stp.train.Value` or
        :class:`stp.train.Survival`, or a list of them for one model with several targets.
    fold_key
        Column of `obs` with the number of the fold, written by :func:`stp.tl.assign_folds`.
        Patients of fold -1 are left out.
    config
        Settings of the training.
    validation_share
        Share of the patients that validate if they are drawn, each class alike. With 0 all epochs
        run, and there is neither temperature nor threshold.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The model of each fold, in their order, on the CPU.

    Raises
    ------
    KeyError
        If a column is missing, or the table is no cohort.
    ValueError
        If labels cannot be learned, folds are no numbers, or `output_dir` has a run with other
        settings.
    TypeError
        If a target is something else.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/cv", targets=target, config=config)
    >>> len(models)
    2
    """
    target_list = as_targets(targets)
    check_share(validation_share)
    slide_cohort = SlideCohort.of(cohort)
    folds = read_folds(cohort, fold_key)
    target_list = name_classes(slide_cohort, target_list)
    plans = plan_folds(slide_cohort, target_list, folds, validation_share, config.seed)
    inputs = {
        "stage": "cross_validate_slides",
        **slide_cohort.fingerprint,
        "folds": {str(fold): plan.settings for fold, plan in plans.items()},
    }
    path = Path(output_dir)
    names = [f"fold_{fold}" for fold in plans]
    with distributed(config.device) as processes:
        settings = run_settings(config, inputs)
        with RunDir(path, settings, resume=resume, processes=processes) as run:
            run.on_main_process(lambda: _write_folds(path, slide_cohort.patients, plans))
            if run.checkpoint.phase and processes.is_main:
                logger.info(
                    f"{run.checkpoint.phase} of {len(plans)} folds are finished and skipped"
                )
            if run.checkpoint.phase < len(plans):
                # Until all folds are trained, the folder is no cross-validation.
                run.on_main_process(lambda: (path / MODELS).unlink(missing_ok=True))
                _train_folds(run, slide_cohort, plans, config, resume=resume)
            run.on_main_process(lambda: _write_names(path, names))
    return [SlideModel.from_pretrained(path / name) for name in names]


def read_folds(cohort: "AnnData", fold_key: str) -> np.ndarray:
    """Return the number of the fold of each patient (n_patients,); -1 if it is left out.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A patient has no fold, a fold is no whole number, or there is only one.
    """
    if fold_key not in cohort.obs:
        raise KeyError(
            f"adata.obs[{fold_key!r}] is missing; run stp.tl.assign_folds(cohort, label_key) first"
        )
    labels = patient_labels(cohort, fold_key)
    names = class_names(labels)
    wrong = [str(name) for name in names if name != NO_FOLD and not str(name).isdecimal()]
    if wrong:
        raise ValueError(
            f"obs[{fold_key!r}] has {preview(sorted(set(wrong)))}; a fold is a whole number for "
            "every patient, as stp.tl.assign_folds writes it"
        )
    folds = names.astype(int).to_numpy()
    if len(np.unique(folds[folds >= 0])) < 2:
        raise ValueError(f"obs[{fold_key!r}] has one fold only; cross-validation needs two")
    return folds


def name_classes(cohort: SlideCohort, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return targets with their classes, which are then the same in all folds."""
    everyone = np.ones(len(cohort.patients), bool)
    return tuple(
        replace(target, classes=target.describe(cohort.table, everyone).classes)
        if isinstance(target, Classes)
        else target
        for target in targets
    )


def plan_folds(
    cohort: SlideCohort,
    targets: Sequence[Target],
    folds: np.ndarray,
    validation_share: float,
    seed: int,
) -> dict[int, SlidePlan]:
    """Return what each fold trains, after a check of all of them."""
    labeled, first_labels = find_labeled(cohort, targets)
    labeled = labeled[folds[labeled] >= 0]
    plans = {}
    for fold in np.unique(folds[labeled]).tolist():
        others = labeled[folds[labeled] != fold]
        test = labeled[folds[labeled] == fold]
        # Another split in each fold, which does not depend on the number of folds.
        fold_seed = int(np.random.SeedSequence((seed, fold)).generate_state(1)[0])
        split = draw_split(first_labels, others, validation_share, fold_seed, test)
        try:
            plans[fold] = SlidePlan.of(cohort, targets, split)
        except ValueError as error:
            raise ValueError(f"fold {fold}: {error}") from error
    return plans


def _train_folds(
    run: RunDir,
    cohort: SlideCohort,
    plans: dict[int, SlidePlan],
    config: SlideConfig,
    *,
    resume: bool,
) -> None:
    """Train the folds that are left; all read the same bags."""
    bags = cohort.write_bags(run)
    n_finished = run.checkpoint.phase
    start = time.monotonic()
    for number, (fold, plan) in enumerate(plans.items()):
        if number < n_finished:
            continue
        if run.processes.is_main:
            n_new = number - n_finished
            left = time_left(len(plans) - number, n_new, time.monotonic() - start)
            title = f"Fold {number + 1} of {len(plans)}"
            logger.info(f"{title} ({left})" if left else title)
        inputs = {"stage": "fit_slides", **cohort.fingerprint, **plan.settings}
        path = run.path / f"fold_{fold}"
        settings = run_settings(config, inputs)
        with RunDir(path, settings, resume=resume, processes=run.processes) as fold_run:
            if fold_run.checkpoint.phase < FINISHED:
                train_slides(fold_run, cohort, plan, config, bags)
        model = SlideModel.from_pretrained(path)
        line = {"phase": 0, "epoch": number, "step": fold, "split": "validation"}
        run.log(line | dict(model.card.metrics))
        run.finish(number + 1)


def _write_folds(path: Path, patients: list[str], plans: dict[int, SlidePlan]) -> None:
    """Write the side of each patient in each fold."""
    import pandas as pd

    tables = [
        pd.DataFrame({"patient": patients, "fold": fold, "side": plan.split.sides(len(patients))})
        for fold, plan in plans.items()
    ]
    table = pd.concat(tables).query("side != ''")
    write_atomically(path / FOLDS, lambda file: table.to_csv(file, index=False, encoding="utf-8"))


def _write_names(path: Path, names: list[str]) -> None:
    """Write the names of the finished runs."""
    text = json.dumps({"models": names}, indent=2)
    write_atomically(path / MODELS, lambda file: file.write_text(text, encoding="utf-8"))
