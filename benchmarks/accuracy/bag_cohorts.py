"""Cohorts of the benchmarks of slide models: arrays become feature files, labels become columns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

import stp

if TYPE_CHECKING:
    from anndata import AnnData


def write_cohort(bags: Mapping[str, np.ndarray], labels: pd.DataFrame, folder: Path) -> "AnnData":
    """Write each bag (n, width) into a file, and return the cohort of all.

    Parameters
    ----------
    bags
        Features of each patient, who has one slide.
    labels
        Columns of the cohort, by patient.
    folder
        Folder of the files; those that exist are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {patient: folder / f"{patient}.pt" for patient in bags}
    for patient, path in paths.items():
        if not path.exists():
            torch.save(torch.from_numpy(bags[patient]), path)
    names = list(bags)
    slides = labels.loc[names].assign(
        patient=names, slide=names, path=[str(path) for path in paths.values()]
    )
    return stp.io.read_cohort(slides.reset_index(drop=True))


def out_of_fold(
    cohort: "AnnData",
    folder: Path,
    target: stp.train.Classes | stp.train.Survival,
    config: stp.train.SlideConfig,
    *,
    validation_share: float = 0.2,
) -> np.ndarray:
    """Cross-validate, and return the prediction of each patient by the model that never saw them.

    Returns
    -------
    Predictions (n_patients, n_outputs): probabilities of the classes, or the risk.
    """
    stp.train.cross_validate_slides(
        cohort, folder, targets=target, config=config, validation_share=validation_share
    )
    stp.tl.predict_slides(cohort, folder, progress=False)
    return np.asarray(cohort.obsm["stp_slides"])


def by_fold(cohort: "AnnData", score: Callable[[np.ndarray], float]) -> list[float]:
    """Return a score of the rows of each fold."""
    folds = cohort.obs["stp_fold"].to_numpy()
    return [score(np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
