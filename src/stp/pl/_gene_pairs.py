"""Measured and predicted values of the same genes, for plots."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.genes.gene_choice import find_predicted, locate_in_prediction, predicted_genes
from stp.genes.gene_lookup import (
    GeneLookup,
    check_repeated_genes,
    most_similar,
    suggest_names,
)
from stp.metrics import gene_pearson
from stp.tables import keys
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles, units_of
from stp.tables.table import require

if TYPE_CHECKING:
    from anndata import AnnData

PREDICT_CALL = "stp.tl.predict_expression(adata, reference)"


class GenePairs(NamedTuple):
    """Measured and predicted values of the same genes."""

    genes: list[str]
    measured: np.ndarray  # (n_obs, n_genes)
    predicted: np.ndarray  # (n_obs, n_genes), NaN for spots without a prediction
    is_doubtful: np.ndarray  # (n_obs,) whether the spot is far from all references, or uniform
    units: str

    @property
    def has_prediction(self) -> np.ndarray:
        """Whether each spot (n_obs,) has a prediction."""
        return np.isfinite(self.predicted).all(axis=1)

    def correlations(self) -> np.ndarray:
        """Return the correlation of each gene (n_genes,) over spots."""
        rows = self.has_prediction
        return gene_pearson(self.measured[rows], self.predicted[rows])


def gene_pairs(table: "AnnData", key: str, layer: str | None, genes: list[str]) -> GenePairs:
    """Return measured and predicted values of some genes, or raise an error if one is missing."""
    values = np.asarray(require(table, "obsm", key, PREDICT_CALL))
    prediction = require(table, "uns", key, PREDICT_CALL)
    check_unique(table, "adata")
    names, _ = predicted_genes(prediction)
    measured_columns = find_predicted(prediction, GeneLookup(table))
    positions = np.array(locate_in_prediction(prediction, genes), dtype=np.int64)
    if (positions < 0).any():
        not_predicted = [gene for gene, i in zip(genes, positions, strict=True) if i < 0]
        question = suggest_names(not_predicted, lambda gene: most_similar(gene, names))
        raise KeyError(
            f"{not_predicted} were not predicted; {question}choose from adata.uns[{key!r}]['genes']"
        )
    check_repeated_genes(genes, positions)
    columns = measured_columns[positions]
    if (columns < 0).any():
        not_measured = [gene for gene, i in zip(genes, columns, strict=True) if i < 0]
        raise KeyError(f"{not_measured} are not measured; choose from adata.var_names")
    predicted_units = prediction.get("units", LOG_COUNTS)
    units = units_of(table, layer)
    if units != predicted_units:
        raise ValueError(
            f"predicted is {predicted_units}, measured is {units}; pass layer= what was predicted"
        )
    shown = [names[position] for position in positions]
    measured = np.concatenate(list(profiles(table, layer, columns)))
    pairs = GenePairs(shown, measured, values[:, positions], _doubtful_spots(table, key), units)
    if not pairs.has_prediction.any():
        raise ValueError(
            f"obsm[{key!r}] has no prediction for any spot, because no spot has an embedding"
        )
    return pairs


def _doubtful_spots(table: "AnnData", key: str) -> np.ndarray:
    """Return whether each spot (n_obs,) is flagged as far or uniform; regressions flag none."""
    is_doubtful = np.zeros(table.n_obs, dtype=bool)
    for flag in (keys.far(key), keys.uniform(key)):
        if flag in table.obs:  # tables that were joined may lack it
            is_doubtful |= table.obs[flag].eq(True).to_numpy(dtype=bool)
    return is_doubtful
