"""How well expression is predicted: the paper's scores, and the baselines that a claim has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import scanpy as sc
from scipy.ndimage import gaussian_filter, sobel
from scipy.spatial import cKDTree
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stp._extras import import_extra
from stp.metrics import ScoredGenes, expression_scores, scored_genes

N_VARIABLE, N_SCORED = 5000, 100
SCALES = (1, 2, 4)  # pixels at which texture is measured


@dataclass(frozen=True)
class Targets:
    """The genes that are predicted and those of them that are scored."""

    genes: np.ndarray  # names of the highly variable genes
    scored: ScoredGenes  # columns of the most variable and the most expressed of them

    @classmethod
    def choose(
        cls, train: Sequence[anndata.AnnData], everywhere: Sequence[str], n_genes: int = N_VARIABLE
    ) -> "Targets":
        """Choose highly variable genes (seurat_v3 on raw counts) among those that every slide measures."""
        import_extra("skmisc")  # seurat_v3 needs it
        counts = anndata.concat(train, index_unique="-")[:, list(everywhere)].copy()
        sc.pp.highly_variable_genes(
            counts, n_top_genes=min(n_genes, counts.n_vars), flavor="seurat_v3"
        )
        genes = counts.var_names[counts.var["highly_variable"]].to_numpy()
        return cls.of(genes, normalized(counts, genes))

    @classmethod
    def of(cls, genes: np.ndarray, expression: np.ndarray) -> "Targets":
        """Score the most variable and the most expressed of these genes in this expression."""
        return cls(genes, scored_genes(expression, N_SCORED))

    def score(self, measured: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return PCC-V, PCC-E and the mean squared error over the union of both sets."""
        return expression_scores(measured, predicted, self.scored)


def normalized(adata: anndata.AnnData, genes: Sequence[str]) -> np.ndarray:
    """Return log1p of counts per 10,000, normalized over all genes, of some: (n_obs, n_genes)."""
    scaled = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
    return scaled[:, list(genes)].X.toarray()


def color_and_texture(patches: np.ndarray) -> np.ndarray:
    """Describe patches (n, size, size, 3) by the mean and spread of color and of edges at three scales."""
    pixels = patches.astype(np.float32)
    features = [
        pixels.mean(axis=(1, 2)),
        pixels.std(axis=(1, 2)),
        np.percentile(pixels, (10, 90), axis=(1, 2)),
    ]
    columns = [features[0], features[1], *features[2]]
    gray = pixels.mean(axis=-1)
    for scale in SCALES:
        smooth = gaussian_filter(gray, (0, scale, scale))
        edges = np.hypot(sobel(smooth, axis=1), sobel(smooth, axis=2))
        columns += [edges.mean(axis=(1, 2))[:, None], edges.std(axis=(1, 2))[:, None]]
    return np.hstack(columns)


def ridge(
    train: np.ndarray, expression: np.ndarray, test: np.ndarray, alpha: float = 100.0
) -> np.ndarray:
    """Predict expression from features by ridge regression on standardized features."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(train, expression).predict(test)


def position(
    train: Sequence[tuple[np.ndarray, np.ndarray]], test: np.ndarray, n_nearest: int = 4
) -> np.ndarray:
    """Copy the nearest spots of each sister section after centering coordinates: no image is looked at.

    Parameters
    ----------
    train
        Centers (n, 2) in um and expression (n, n_genes) of each section.
    test
        Centers of the section that is predicted.
    n_nearest
        Spots copied from each section.
    """
    copies = []
    for centers, expression in train:
        near = cKDTree(centers - centers.mean(axis=0)).query(test - test.mean(axis=0), k=n_nearest)[
            1
        ]
        copies.append(expression[near].mean(axis=1))
    return np.mean(copies, axis=0)


def neighbor_mean(centers: np.ndarray, expression: np.ndarray, radius: float) -> np.ndarray:
    """Average the measured neighbors within a radius, the spot itself left out: what smoothness alone explains."""
    near = cKDTree(centers).query_ball_point(centers, radius)
    others = [[j for j in neighbors if j != i] for i, neighbors in enumerate(near)]
    overall = expression.mean(axis=0)
    return np.array([expression[j].mean(axis=0) if j else overall for j in others])
