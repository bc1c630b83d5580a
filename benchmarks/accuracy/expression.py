"""How well expression is predicted: the scores of the paper, and baselines to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import scanpy as sc
from scipy.spatial import cKDTree
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stp.metrics import ScoredGenes, expression_scores, scored_genes

N_VARIABLE = 5000
N_SCORED = 100


@dataclass(frozen=True)
class Targets:
    """The genes that are predicted, and those of them that are scored.

    Parameters
    ----------
    genes
        Names of the highly variable genes.
    scored
        Columns of the most variable and of the most expressed of them.
    """

    genes: np.ndarray
    scored: ScoredGenes

    @classmethod
    def choose(
        cls, train: Sequence[anndata.AnnData], shared: Sequence[str], n_genes: int = N_VARIABLE
    ) -> "Targets":
        """Choose highly variable genes (seurat_v3 on raw counts) among those of all slides.

        Parameters
        ----------
        train
            Tables on which genes are chosen.
        shared
            Names of the genes that every slide measures.
        n_genes
            Number of genes to choose.
        """
        counts = anndata.concat(train, index_unique="-")[:, list(shared)].copy()
        sc.pp.highly_variable_genes(
            counts, n_top_genes=min(n_genes, counts.n_vars), flavor="seurat_v3"
        )
        genes = counts.var_names[counts.var["highly_variable"]].to_numpy()
        return cls.scored_in(genes, normalize(counts, genes))

    @classmethod
    def scored_in(cls, genes: np.ndarray, expression: np.ndarray) -> "Targets":
        """Score the most variable and the most expressed of these genes in this expression."""
        return cls(genes, scored_genes(expression, N_SCORED))

    def score(self, measured: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return PCC-V, PCC-E and the mean squared error over the union of both sets."""
        return expression_scores(measured, predicted, self.scored)


def normalize(adata: anndata.AnnData, genes: Sequence[str]) -> np.ndarray:
    """Return log1p of counts per 10,000 (n_obs, n_genes) of some genes; totals are over all."""
    scaled = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
    return scaled[:, list(genes)].X.toarray()


def ridge(
    train: np.ndarray, expression: np.ndarray, test: np.ndarray, alpha: float = 100.0
) -> np.ndarray:
    """Predict expression by ridge regression on standardized features."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(train, expression).predict(test)


def neighbor_mean(centers: np.ndarray, expression: np.ndarray, radius: float) -> np.ndarray:
    """Average the measured neighbors of each spot, without the spot: what smoothness explains.

    Parameters
    ----------
    centers
        Spot centers (n, 2) in µm.
    expression
        Measured expression (n, n_genes).
    radius
        Distance in µm up to which a spot is a neighbor.
    """
    predicted = np.tile(expression.mean(axis=0), (len(centers), 1))
    for spot, near in enumerate(cKDTree(centers).query_ball_point(centers, radius)):
        neighbors = [neighbor for neighbor in near if neighbor != spot]
        if neighbors:
            predicted[spot] = expression[neighbors].mean(axis=0)
    return predicted
