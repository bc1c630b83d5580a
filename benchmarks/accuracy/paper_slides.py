"""The paper's protocols for whole slides: five folds by patient, and a model for each target."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import stp
from benchmarks.accuracy.paper_cohort import CohortFile

if TYPE_CHECKING:
    from anndata import AnnData

    from stp.train.targets import Target

N_FOLDS = 5
# Section A.3.3: Adam, learning rate 5e-4, 50 epochs, patience 5.
CLASSES = stp.train.SlideConfig(learning_rate=5e-4, epochs=50, patience=5)
# Section A.3.3: discrete hazards, 5e-5, 30 epochs; early stopping is not mentioned.
SURVIVAL = stp.train.SlideConfig(learning_rate=5e-5, epochs=30, patience=30)
SCORES = {
    "mutations": ("auroc",),
    "ubc": ("auroc", "accuracy"),
    "nsclc": ("auroc", "accuracy"),
    "panda": ("auroc", "accuracy"),
    "survival": ("harrell_c",),
}
TASKS = tuple(SCORES)


def run_task(
    task: str, cohort_file: CohortFile, folder: Path, *, seed: int = 0, n_resamples: int = 2000
) -> pd.DataFrame:
    """Cross-validate each target with each set of features, and score and compare them.

    Returns
    -------
    DataFrame with a row per target, set of features and score: `target`, `features`, `score`,
    `value`, `low`, `high`, `n_patients`, `n_positives`, `n_events`; and, if there is a baseline,
    `baseline`, `difference`, `difference_low`, `difference_high` and `p`.
    """
    config = SURVIVAL if task == "survival" else CLASSES
    config = dataclasses.replace(config, **{"seed": seed, **cohort_file.fit})
    cohorts = {name: cohort_file.read(name) for name in cohort_file.features}
    tables = []
    for target, fold_key in _list_targets(task, cohort_file):
        labeled = _select_labeled(cohorts, target, fold_key, seed)
        for name, cohort in labeled.items():
            run = folder / task / target.column / name
            stp.train.cross_validate_slides(cohort, run, targets=target, config=config)
            stp.tl.predict_slides(cohort, run, key_added=name, progress=False)
        tables.append(_score(task, target.column, labeled, seed, n_resamples))
    return pd.concat(tables, ignore_index=True)


def _list_targets(task: str, cohort_file: CohortFile) -> "list[tuple[Target, str]]":
    """Return the targets of a task, each with the column by which folds are alike."""
    columns = cohort_file.columns
    if task == "survival":
        return [(stp.train.Survival(columns["time"], columns["event"]), columns["event"])]
    if task == "mutations":
        genes = columns["mutations"]
        return [
            (stp.train.Classes(gene, positive=columns["positive"]), gene)
            for gene in ([genes] if isinstance(genes, str) else genes)
        ]
    return [(stp.train.Classes(columns["label"]), columns["label"])]


def _select_labeled(
    cohorts: "dict[str, AnnData]", target: "Target", fold_key: str, seed: int
) -> "dict[str, AnnData]":
    """Return the slides of patients with a label, with the same folds for all sets of features."""
    labeled = {}
    for name, cohort in cohorts.items():
        missing = [column for column in target.columns if column not in cohort.obs]
        if missing:
            raise KeyError(f"the cohort has no column {missing[0]!r}; correct [columns]")
        has_label = cohort.obs[list(target.columns)].notna().all(axis=1).to_numpy()
        labeled[name] = cohort[has_label].copy()
        stp.tl.assign_folds(labeled[name], fold_key, n_folds=N_FOLDS, seed=seed)
    folds = [cohort.obs["stp_fold"].to_dict() for cohort in labeled.values()]
    if any(other != folds[0] for other in folds):
        raise ValueError("the sets of features are of other slides; correct their folders")
    return labeled


def _score(
    task: str, target: str, cohorts: "dict[str, AnnData]", seed: int, n_resamples: int
) -> pd.DataFrame:
    """Return a row per set of features and score."""
    baseline, *others = cohorts
    joined = cohorts[baseline]
    for name in others:
        copy_predictions(cohorts[name], joined, name)
    tables = []
    for name in cohorts:
        stp.tl.score_slides(joined, key=name, n_resamples=n_resamples, seed=seed)
        scores = _select_scores(task, joined.uns["stp_slide_scores"]["scores"])
        tables.append(scores.assign(features=name, target=target))
    table = pd.concat(tables, ignore_index=True)
    columns = ["target", "features", "score", "value", "low", "high"]
    table = table[[*columns, "n_patients", "n_positives", "n_events"]]
    if not others:
        return table
    stp.tl.compare_slides(joined, list(cohorts), n_resamples=n_resamples, seed=seed)
    compared = _select_scores(task, joined.uns["stp_slide_comparison"]["scores"])
    compared = compared.rename(
        columns={"prediction": "features", "low": "difference_low", "high": "difference_high"}
    )
    columns = ["baseline", "difference", "difference_low", "difference_high", "p"]
    return table.merge(compared[["features", "score", *columns]], how="left")


def _select_scores(task: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the paper: of all classes, and of the most probable class."""
    is_of_paper = scores["score"].isin(SCORES[task])
    if task != "mutations":
        is_of_paper &= scores["class"] == ""
    return scores[is_of_paper]


def copy_predictions(source: "AnnData", target: "AnnData", name: str) -> None:
    """Copy what `stp.tl.predict_slides` wrote under a name to a table with the same slides."""
    rows = source.obs_names.get_indexer(target.obs_names)
    if (rows < 0).any():
        raise ValueError(f"the predictions {name!r} lack slides of the cohort")
    for column in source.obs:
        if column not in target.obs:
            target.obs[column] = source.obs[column].iloc[rows].to_numpy()
    for key in source.obsm:
        if key not in target.obsm:
            target.obsm[key] = np.asarray(source.obsm[key])[rows]
    target.uns[name] = source.uns[name]
