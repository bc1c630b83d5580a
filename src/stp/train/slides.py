"""Fit a slide model: predict classes, values or survival of patients from their tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import logger
from stp.models.slide import SlideModel
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
from stp.train.slide_split import draw_split, read_split
from stp.train.targets import Target

if TYPE_CHECKING:
    from anndata import AnnData


def fit_slides(
    cohort: "AnnData",
    output_dir: str | Path,
    *,
    targets: Target | Sequence[Target],
    config: SlideConfig = SlideConfig(),
    validation_key: str | None = None,
    validation_share: float = 0.2,
    resume: bool = True,
) -> SlideModel:
    """Fit a model that predicts patients from the tiles of all their slides (paper, section 4.4).

    A part of the patients validates: it chooses the epoch, the temperature of the probabilities,
    and the threshold of `positive` classes. Patients without any label are left out.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    output_dir
        Run directory, which has the files that :func:`stp.train.align` writes.
    targets
        What to predict: :class:`stp.train.Classes`, :class:`stp.train.Value` or
        :class:`stp.train.Survival`, or a list of them for one model with several targets.
    config
        Settings of the training.
    validation_key
        Column of `obs` with True for patients that validate and False for others. By default they
        are drawn at random.
    validation_share
        Share of the patients that validate if they are drawn, each class alike. With 0 all epochs
        run, and there is neither temperature nor threshold.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The model with the best weights by validation, on the CPU. Without validation it has the last
    weights.

    Raises
    ------
    KeyError
        If a column is missing, or the table is no cohort.
    ValueError
        If labels cannot be learned, e.g. a class with one patient, or `output_dir` has a run with
        other settings.
    TypeError
        If a target is something else.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/egfr_model", targets=target, config=config)
    >>> slide_model.config.columns
    ('EGFR_mutated', 'EGFR_wild type')
    """
    target_list = as_targets(targets)
    slide_cohort = SlideCohort.of(cohort)
    labeled, first_labels = find_labeled(slide_cohort, target_list)
    check_share(validation_share)
    if validation_key is None:
        none = np.array([], np.int64)
        split = draw_split(first_labels, labeled, validation_share, config.seed, none)
    else:
        split = read_split(cohort, validation_key, labeled)
    plan = SlidePlan.of(slide_cohort, target_list, split)
    inputs = {"stage": "fit_slides", **slide_cohort.fingerprint, **plan.settings}
    with distributed(config.device) as processes:
        settings = run_settings(config, inputs)
        with RunDir(output_dir, settings, resume=resume, processes=processes) as run:
            if run.checkpoint.phase < FINISHED:
                bags = slide_cohort.write_bags(run)
                train_slides(run, slide_cohort, plan, config, bags)
            elif processes.is_main:
                logger.info(f"the model in {output_dir} is finished and not trained again")
    return SlideModel.from_pretrained(output_dir)


def check_share(validation_share: float) -> None:
    """Raise ValueError if a share is not from 0 to 1."""
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share must be at least 0 and below 1, not {validation_share}")
