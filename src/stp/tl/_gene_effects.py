"""Effects of genes over patients: means, intervals, tests, and a row per gene."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp.metrics._rank_tests import MIN_PATIENTS, adjust_p, signed_rank_p
from stp.metrics._resample import resample

if TYPE_CHECKING:
    import pandas as pd

N_RESAMPLES = 1000
LEVEL = 0.95
BLOCK = 512  # genes whose resamples are in memory at a time


@dataclass(frozen=True)
class GeneEffects:
    """Effects of genes in slides for one output.

    Parameters
    ----------
    correlation
        Rank correlation of contribution and gene (n_slides, n_genes); NaN if there is none.
    standardized
        The same, standardized by shifted maps (n_slides, n_genes).
    patient
        Number of the patient of each slide (n_slides,).
    """

    correlation: np.ndarray
    standardized: np.ndarray
    patient: np.ndarray

    def of(self, is_used: np.ndarray) -> "GeneEffects":
        """Return the effects in some slides."""
        return GeneEffects(
            self.correlation[is_used], self.standardized[is_used], self.patient[is_used]
        )

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(np.unique(self.patient))


def effects_table(
    effects: GeneEffects, genes: list[str], model_p: float, seed: int
) -> "pd.DataFrame":
    """Return a row per gene: mean effect over patients, interval, p and q, strongest first.

    A patient with several slides counts once, with their mean.

    Parameters
    ----------
    effects
        Effects in slides.
    genes
        Names of the genes.
    model_p
        P-value that the model predicts nothing; NaN if it is unknown.
    seed
        Random seed for the resamples of patients.
    """
    by_patient = _mean_by(effects.correlation, effects.patient)
    p = signed_rank_p(_mean_by(effects.standardized, effects.patient))
    return describe_effects(effects, by_patient, genes, p, model_p, seed)


def describe_effects(
    effects: GeneEffects,
    by_patient: np.ndarray,
    genes: list[str],
    p: np.ndarray,
    model_p: float,
    seed: int,
) -> "pd.DataFrame":
    """Return a row per gene, for p-values that are known; see `effects_table`."""
    import pandas as pd

    n_patients = np.isfinite(by_patient).sum(axis=0)
    n_slides = np.isfinite(effects.correlation).sum(axis=0)
    effect = _nan_mean(by_patient)
    low, high = _intervals(by_patient, seed)
    same_sign = np.sign(effects.correlation) == np.sign(effect)
    # A model that predicts nothing has no genes behind its predictions, so both must be shown.
    both = np.fmax(p, model_p)
    both[np.isnan(p)] = np.nan
    table = pd.DataFrame(
        {
            "gene": genes,
            "effect": effect,
            "low": low,
            "high": high,
            "share_same_sign": same_sign.sum(axis=0) / np.maximum(n_slides, 1),
            "p": p,
            "q": adjust_p(both),
            "n_slides": n_slides,
            "n_patients": n_patients,
        }
    )
    order = np.argsort(-np.nan_to_num(np.abs(effect), nan=-1), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def mean_by_patient(effects: GeneEffects) -> np.ndarray:
    """Return the mean correlation of the slides of each patient (n_patients, n_genes)."""
    return _mean_by(effects.correlation, effects.patient)


def enough_patients(effects: GeneEffects) -> bool:
    """Return whether a signed-rank test can show anything."""
    return effects.n_patients >= MIN_PATIENTS


def _mean_by(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean of each group of rows (n_groups, n_columns), without NaN."""
    return np.array([_nan_mean(values[groups == group]) for group in np.unique(groups)])


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column (n_columns,) without NaN; NaN if there is no value."""
    n = np.isfinite(values).sum(axis=0)
    return np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)


def _intervals(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of the mean of each column over resampled patients.

    It is NaN with fewer patients than the test needs.
    """
    n_columns = values.shape[1]
    bounds = np.full((2, n_columns), np.nan)
    n_finite = np.isfinite(values).sum(axis=0)
    if len(values) < MIN_PATIENTS:
        return bounds[0], bounds[1]
    draws = resample(np.zeros(len(values)), n_resamples=N_RESAMPLES, seed=seed).astype(float)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    for start in range(0, n_columns, BLOCK):
        block = slice(start, start + BLOCK)
        weight = draws @ np.isfinite(values[:, block])
        total = draws @ np.nan_to_num(values[:, block])
        means = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
        is_enough = n_finite[block] >= MIN_PATIENTS
        columns = start + np.flatnonzero(is_enough)
        bounds[:, columns] = np.nanquantile(means[:, is_enough], tails, axis=0)
    return bounds[0], bounds[1]
