"""How well embeddings agree with a pathologist's regions: Leiden clusters, a probe, and PCA."""

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold

import stp

MIN_SPOTS = 20  # smaller classes are dropped
NO_LABEL = ["", "undetermined", "nan", "None", "NA"]
N_VARIABLE = 2000
N_COMPONENTS = 50
N_BLOCKS = 4  # blocks per side of a section
N_FOLDS = 5
GENE_RATE = 1e-3  # the paper's learning rate of a probe on genes


def keep_labeled(adata: anndata.AnnData, label_key: str = "pathologist_label") -> anndata.AnnData:
    """Return the spots with a determined label whose class has enough spots."""
    return adata[labeled_rows(adata.obs[label_key])].copy()


def labeled_rows(labels: pd.Series) -> np.ndarray:
    """Return the positions of spots with a determined label whose class has enough spots."""
    labels = labels.astype(str)
    counts = labels[~labels.isin(NO_LABEL)].value_counts()
    return np.flatnonzero(labels.isin(counts.index[counts >= MIN_SPOTS]))


def probe(embedding: np.ndarray, labels: np.ndarray, coordinates: np.ndarray) -> dict[str, float]:
    """Return the balanced accuracy of both linear probes over five folds of spatial blocks."""
    obs = pd.DataFrame({"label": labels, "block": number_blocks(coordinates, N_FOLDS).astype(str)})
    obs.index = obs.index.astype(str)
    spots = anndata.AnnData(obs=obs, obsm={"X": embedding})
    stp.tl.linear_probe(spots, "label", group_key="block", use_rep="X", key_added="probe")
    stp.tl.linear_probe_paper(
        spots,
        "label",
        group_key="block",
        use_rep="X",
        learning_rate=GENE_RATE,
        key_added="paper_probe",
    )
    return {
        key: float(balanced_accuracy_score(labels, spots.obs[key].astype(str)))
        for key in ("probe", "paper_probe")
    }


def number_blocks(coordinates: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each spot; the spots of one spatial block are in one fold."""
    quantiles = np.linspace(0, 1, N_BLOCKS + 1)[1:-1]
    column, row = (np.searchsorted(np.quantile(axis, quantiles), axis) for axis in coordinates.T)
    fold = np.empty(len(coordinates), dtype=int)
    splits = GroupKFold(n_folds).split(coordinates, groups=row * N_BLOCKS + column)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    return fold


def pca(section: anndata.AnnData, train: Sequence[anndata.AnnData]) -> np.ndarray:
    """Return components of a section, fitted on other sections."""
    return pca_of([section], train)[0]


def pca_of(
    sections: Sequence[anndata.AnnData], train: Sequence[anndata.AnnData]
) -> list[np.ndarray]:
    """Return components of log expression of each section, fitted once on the training sections.

    Only the most variable genes of the training sections are used.
    """
    shared = sorted(set.intersection(*(set(a.var_names) for a in (*sections, *train))))
    pooled = _normalize(anndata.concat([a[:, shared] for a in train], index_unique="-"))
    sc.pp.highly_variable_genes(pooled, n_top_genes=min(N_VARIABLE, pooled.n_vars))
    is_variable = pooled.var["highly_variable"].to_numpy()
    n_components = min(N_COMPONENTS, pooled.n_obs, int(is_variable.sum()))
    model = PCA(n_components, random_state=0).fit(pooled.X[:, is_variable].toarray())
    components = []
    for section in sections:
        values = _normalize(section[:, shared]).X[:, is_variable]
        components.append(model.transform(values.toarray()))
    return components


def _normalize(adata: anndata.AnnData) -> anndata.AnnData:
    return sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
