"""Leiden clusters of an embedding, and how well they agree with labels."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from stp._log import silence
from stp.metrics import clustering_scores

if TYPE_CHECKING:
    from anndata import AnnData

SEEDS = range(5)
RESOLUTION = 0.5  # of the paper
MAX_RESOLUTION = 3.0
N_HALVINGS = 12
OTHER_DEFAULT = "In the future, the default backend"  # of scanpy; ours is named


def cluster_agreement(
    embedding: np.ndarray, labels: np.ndarray, seeds: Iterable[int] = SEEDS
) -> dict[str, float]:
    """Return mean ARI and NMI over seeds.

    Scores are at the paper's resolution, and once more ("matched") at as many clusters as there are
    classes.
    """
    adata = _make_graph(embedding)
    n_classes = len(np.unique(labels))
    seeds = list(seeds)
    clusters = {
        "": [_cluster(adata, RESOLUTION, seed) for seed in seeds],
        "_matched": [_cluster_into(adata, n_classes, seed) for seed in seeds],
    }
    means = {}
    for suffix, runs in clusters.items():
        scores = [clustering_scores(labels, run) for run in runs]
        for name in ("ari", "nmi"):
            means[name + suffix] = float(np.mean([score[name] for score in scores]))
    return means


def leiden_clusters(
    embedding: np.ndarray, seeds: Iterable[int] = SEEDS
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each seed and its Leiden clusters at the paper's resolution."""
    adata = _make_graph(embedding)
    for seed in seeds:
        yield seed, _cluster(adata, RESOLUTION, seed)


def _make_graph(embedding: np.ndarray) -> "AnnData":
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(np.zeros((len(embedding), 1), np.float32), obsm={"X": embedding})
    sc.pp.neighbors(adata, use_rep="X", transformer="sklearn")
    return adata


def _cluster(adata: "AnnData", resolution: float, seed: int) -> np.ndarray:
    import scanpy as sc

    with silence(OTHER_DEFAULT):
        sc.tl.leiden(adata, resolution=resolution, random_state=seed, flavor="leidenalg")
    return adata.obs["leiden"].to_numpy()


def _cluster_into(adata: "AnnData", n_clusters: int, seed: int) -> np.ndarray:
    """Bisect the resolution for a number of clusters, and return the run that came nearest."""
    low = 0.0
    high = MAX_RESOLUTION
    best = None
    best_distance = np.inf
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        clusters = _cluster(adata, middle, seed)
        n = len(np.unique(clusters))
        if abs(n - n_clusters) < best_distance:
            best = clusters
            best_distance = abs(n - n_clusters)
        if n == n_clusters:
            break
        if n < n_clusters:
            low = middle
        else:
            high = middle
    assert best is not None
    return best
