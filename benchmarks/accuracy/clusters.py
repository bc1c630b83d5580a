"""How well embeddings agree with a pathologist's regions: Leiden clusters and a probe, beside PCA."""

from collections.abc import Iterable, Iterator, Sequence

import anndata
import numpy as np
import pandas as pd
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
NO_LABEL = ["", "undetermined", "nan", "None", "NA"]
N_VARIABLE, N_COMPONENTS = 2000, 50
BLOCKS, N_FOLDS = 4, 5  # blocks per side of a section


def labelled(adata: anndata.AnnData, label_key: str = "pathologist_label") -> anndata.AnnData:
    """Keep the spots with a determined label whose class has enough spots."""
    return adata[labelled_rows(adata.obs[label_key])].copy()


def labelled_rows(labels: pd.Series) -> np.ndarray:
    """Return the positions of spots with a determined label whose class has enough spots."""
    labels = labels.astype(str)
    counts = labels[~labels.isin(NO_LABEL)].value_counts()
    return np.flatnonzero(labels.isin(counts.index[counts >= MIN_SPOTS]))


def agreement(embedding: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean ARI and NMI over seeds, at the paper's resolution and at as many clusters as there are classes."""
    adata, n_classes = _graph(embedding), len(np.unique(labels))
    found = {"": [_leiden(adata, RESOLUTION, seed) for seed in SEEDS]}
    found["_matched"] = [_matched(adata, n_classes, seed) for seed in SEEDS]
    scores = {
        tag: [clustering_scores(labels, clusters) for clusters in runs]
        for tag, runs in found.items()
    }
    return {
        f"{name}{tag}": float(np.mean([s[name] for s in runs]))
        for tag, runs in scores.items()
        for name in ("ari", "nmi")
    }


def clusters_of(
    embedding: np.ndarray, seeds: Iterable[int] = SEEDS
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each seed and its Leiden clusters at the paper's resolution."""
    adata = _graph(embedding)
    for seed in seeds:
        yield seed, _leiden(adata, RESOLUTION, seed)


def _graph(embedding: np.ndarray) -> anndata.AnnData:
    adata = anndata.AnnData(np.zeros((len(embedding), 1), np.float32), obsm={"X": embedding})
    sc.pp.neighbors(adata, use_rep="X", transformer="sklearn")
    return adata


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
    predicted, fold = np.empty_like(labels), blocks(coordinates, N_FOLDS)
    for number in range(N_FOLDS):
        train, test = fold != number, fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        predicted[test] = model.fit(embedding[train], labels[train]).predict(embedding[test])
    return float(balanced_accuracy_score(labels, predicted))


def blocks(coordinates: np.ndarray, n_folds: int) -> np.ndarray:
    """Number the fold of each spot, so that spots of one spatial block are in one fold."""
    edges = [np.quantile(axis, np.linspace(0, 1, BLOCKS + 1)[1:-1]) for axis in coordinates.T]
    column, row = (
        np.searchsorted(edge, axis) for edge, axis in zip(edges, coordinates.T, strict=True)
    )
    fold = np.empty(len(coordinates), dtype=int)
    for number, (_, test) in enumerate(
        GroupKFold(n_folds).split(coordinates, groups=row * BLOCKS + column)
    ):
        fold[test] = number
    return fold


def pca(section: anndata.AnnData, fitted_on: Sequence[anndata.AnnData]) -> np.ndarray:
    """Components of log expression of the variable genes, fitted on some sections, of one section."""
    return pca_of([section], fitted_on)[0]


def pca_of(
    sections: Sequence[anndata.AnnData], fitted_on: Sequence[anndata.AnnData]
) -> list[np.ndarray]:
    """Components of log expression of the variable genes, fitted once on some sections, of each of others."""
    shared = sorted(set.intersection(*(set(a.var_names) for a in (*sections, *fitted_on))))
    fit = _log(anndata.concat([a[:, shared] for a in fitted_on], index_unique="-"))
    sc.pp.highly_variable_genes(fit, n_top_genes=min(N_VARIABLE, fit.n_vars))
    genes = fit.var["highly_variable"].to_numpy()
    n_components = min(N_COMPONENTS, fit.n_obs, int(genes.sum()))
    components = PCA(n_components, random_state=0).fit(fit.X[:, genes].toarray())
    return [components.transform(_log(one[:, shared]).X[:, genes].toarray()) for one in sections]


def _log(adata: anndata.AnnData) -> anndata.AnnData:
    return sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
