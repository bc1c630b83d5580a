"""How well embeddings agree with a pathologist's regions: Leiden clusters and a probe, beside PCA."""

from collections.abc import Sequence

import anndata
import numpy as np
import scanpy as sc
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stp.metrics import clustering_scores

SEEDS = range(5)
RESOLUTION = 0.5  # the paper's
MIN_SPOTS = 20  # smaller classes are dropped
N_VARIABLE, N_COMPONENTS = 2000, 50
BLOCKS, N_FOLDS = 4, 5  # blocks per side of a section


def labelled(adata: anndata.AnnData, label_key: str = "pathologist_label") -> anndata.AnnData:
    """Keep the spots with a determined label whose class has enough spots."""
    labels = adata.obs[label_key].astype(str)
    counts = labels[~labels.isin(["", "undetermined"])].value_counts()
    return adata[labels.isin(counts.index[counts >= MIN_SPOTS])].copy()


def agreement(embedding: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean ARI and NMI over seeds, at the paper's resolution and at as many clusters as there are classes."""
    adata = anndata.AnnData(np.zeros((len(embedding), 1), np.float32), obsm={"X": embedding})
    sc.pp.neighbors(adata, use_rep="X", transformer="sklearn")
    n_classes = len(np.unique(labels))
    paper = [_leiden(adata, RESOLUTION, seed) for seed in SEEDS]
    matched = [_matched(adata, n_classes, seed) for seed in SEEDS]
    scores = {
        "": [clustering_scores(labels, c) for c in paper],
        "_matched": [clustering_scores(labels, c) for c in matched],
    }
    return {
        f"{name}{tag}": float(np.mean([s[name] for s in runs]))
        for tag, runs in scores.items()
        for name in ("ari", "nmi")
    }


def _leiden(adata: anndata.AnnData, resolution: float, seed: int) -> np.ndarray:
    sc.tl.leiden(adata, resolution=resolution, random_state=seed, flavor="leidenalg")
    return adata.obs["leiden"].to_numpy()


def _matched(adata: anndata.AnnData, n_clusters: int, seed: int) -> np.ndarray:
    """Bisect the resolution for a number of clusters; the nearest that was met counts."""
    low, high, best = 0.0, 3.0, None
    for _ in range(12):
        middle = (low + high) / 2
        clusters = _leiden(adata, middle, seed)
        n = len(np.unique(clusters))
        if best is None or abs(n - n_clusters) < abs(len(np.unique(best)) - n_clusters):
            best = clusters
        if n == n_clusters:
            break
        low, high = (middle, high) if n < n_clusters else (low, middle)
    return best


def probe(embedding: np.ndarray, labels: np.ndarray, coordinates: np.ndarray) -> float:
    """Balanced accuracy of logistic regression, over five folds of spatial blocks: neighbors stay together."""
    edges = [np.quantile(axis, np.linspace(0, 1, BLOCKS + 1)[1:-1]) for axis in coordinates.T]
    column, row = (np.searchsorted(edge, axis) for edge, axis in zip(edges, coordinates.T, strict=True))
    predicted = np.empty_like(labels)
    for train, test in GroupKFold(N_FOLDS).split(embedding, groups=row * BLOCKS + column):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        predicted[test] = model.fit(embedding[train], labels[train]).predict(embedding[test])
    return float(balanced_accuracy_score(labels, predicted))


def pca(section: anndata.AnnData, fitted_on: Sequence[anndata.AnnData]) -> np.ndarray:
    """Components of log expression of the variable genes, fitted on some sections, of one section."""
    shared = sorted(set.intersection(*(set(a.var_names) for a in (section, *fitted_on))))
    fit = _log(anndata.concat([a[:, shared] for a in fitted_on], index_unique="-"))
    sc.pp.highly_variable_genes(fit, n_top_genes=N_VARIABLE)
    genes = fit.var["highly_variable"].to_numpy()
    components = PCA(N_COMPONENTS, random_state=0).fit(fit.X.toarray()[:, genes])
    return components.transform(_log(section[:, shared]).X.toarray()[:, genes])


def _log(adata: anndata.AnnData) -> anndata.AnnData:
    return sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
