"""Survival of bladder cancer (TCGA-BLCA) from RNA, as bags of one."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import stp
from benchmarks.accuracy.bag_cohorts import by_fold, out_of_fold, write_cohort
from benchmarks.measure import Row, run_once

if TYPE_CHECKING:
    from anndata import AnnData

N_FOLDS = 5
SEEDS = range(1)
N_COMPONENTS = 10
# Learning rate and epochs of the paper's survival models (A.3.3).
CONFIG = stp.train.SlideConfig(epochs=30, learning_rate=5e-5, standardize=True)


def survival_rows(data: Path, folder: Path) -> list[Row]:
    """Return the C-index of slide models and of Cox regression, on two kinds of folds."""
    cohort, features = read_survival(data, folder / "bags" / "blca")
    rows = []
    for split in ("given", "hospitals"):
        results = [
            run_once(
                folder / f"blca_{split}_{seed}.json",
                lambda c=cohort, f=features, k=split, s=seed: [score_split(c, f, folder, k, s)],
            )[0]
            for seed in SEEDS
        ]
        title = {"given": "5 folds of SurvPath", "hospitals": "5 folds, hospitals whole"}[split]
        for name in ("bags of one", "Cox regression on 10 components"):
            values = [result[name] for result in results]
            rows.append(
                {
                    "measured": f"TCGA-BLCA, {title}, {name}",
                    "result": {
                        "mean": round(float(np.mean(values)), 3),
                        "range": [round(min(values), 3), round(max(values), 3)],
                    },
                    "unit": "C-index",
                    "split": f"{title}, by patient",
                    "seeds": len(SEEDS),
                }
            )
    return rows


def read_survival(data: Path, folder: Path) -> tuple["AnnData", np.ndarray]:
    """Return the cohort and its RNA (n_patients, n_genes), in the same order."""
    rna = pd.read_csv(data / "rna.csv.gz", index_col=0)
    slides = pd.read_csv(data / "slides.csv").drop_duplicates("case_id").set_index("case_id")
    patients = rna.index.intersection(slides.index)
    labels = slides.loc[patients, ["survival_months", "site"]].copy()
    labels["event"] = 1 - slides.loc[patients, "censorship"].astype(int)
    given = pd.Series(-1, index=patients)
    for fold in range(N_FOLDS):
        table = pd.read_csv(data / f"splits_{fold}.csv")
        given[given.index.isin(table["val"].dropna())] = fold
    labels["given"] = given
    labels = labels[(labels["given"] >= 0) & (labels["survival_months"] > 0)]
    values = rna.loc[labels.index].to_numpy(dtype=np.float32)
    bags = dict(zip(labels.index, values[:, None], strict=True))
    cohort = write_cohort(bags, labels, folder)
    order = [labels.index.get_loc(name) for name in cohort.obs["patient"].astype(str)]
    return cohort, values[order]


def score_split(
    cohort: "AnnData", features: np.ndarray, folder: Path, split: str, seed: int
) -> dict[str, float]:
    """Return the mean C-index of the folds; the given folds are the same for all seeds."""
    if split == "given":
        cohort.obs["stp_fold"] = cohort.obs["given"].astype(int)
    else:
        stp.tl.assign_folds(cohort, "event", n_folds=N_FOLDS, site_key="site", seed=seed)
    target = stp.train.Survival("survival_months", "event")
    config = dataclasses.replace(CONFIG, seed=seed)
    risk = out_of_fold(cohort, folder / "runs" / f"blca_{split}_{seed}", target, config)[:, 0]
    times = cohort.obs["survival_months"].to_numpy(dtype=float)
    events = cohort.obs["event"].to_numpy(dtype=int) == 1
    cox = cox_out_of_fold(features, times, events, cohort.obs["stp_fold"].to_numpy())

    def mean_concordance(values: np.ndarray) -> float:
        return float(
            np.mean(
                by_fold(
                    cohort,
                    lambda rows: stp.metrics.concordance(times[rows], events[rows], values[rows]),
                )
            )
        )

    return {
        "bags of one": mean_concordance(risk),
        "Cox regression on 10 components": mean_concordance(cox),
    }


def cox_out_of_fold(
    features: np.ndarray, times: np.ndarray, events: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return the risk of each patient by Cox regression that is fitted on the other folds."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from statsmodels.duration.hazard_regression import PHReg

    risk = np.zeros(len(folds))
    for fold in np.unique(folds):
        is_test = folds == fold
        components = make_pipeline(
            StandardScaler(), PCA(N_COMPONENTS, random_state=0), StandardScaler()
        )
        train = components.fit_transform(features[~is_test])
        model = PHReg(times[~is_test], train, status=events[~is_test]).fit()
        risk[is_test] = components.transform(features[is_test]) @ model.params
    return risk
