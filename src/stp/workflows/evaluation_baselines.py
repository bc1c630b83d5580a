"""Genes of an evaluation, and the components of their expression, from tables on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stp.genes.gene_choice import find_shared, name_genes, open_lookups
from stp.genes.table_genes import check_one_species
from stp.metrics import ScoredGenes
from stp.tables.counts import log_normalized_blocks
from stp.tables.features import find_genes
from stp.tables.profiles import check_unique, profiles
from stp.workflows.evaluation_options import TRAIN
from stp.workflows.evaluation_tables import SpotTable

N_SCORED = 100  # most variable genes, and most expressed ones
N_VARIABLE = 2000  # genes of the components
N_COMPONENTS = 50


@dataclass(frozen=True)
class SharedGenes:
    """The genes that all tables measure, and their moments on the training side.

    Parameters
    ----------
    names
        Names (n_genes,).
    columns
        Columns (n_genes,) in each table, by the name of its store.
    mean
        Mean (n_genes,) of log1p of counts per 10,000.
    variance
        Variance (n_genes,) of the same.
    """

    names: np.ndarray
    columns: dict[str, np.ndarray]
    mean: np.ndarray
    variance: np.ndarray

    @property
    def by_variance(self) -> np.ndarray:
        """Genes, the most variable first; ties go to the lower number."""
        return np.argsort(-self.variance, kind="stable")

    def choose(self) -> tuple[np.ndarray, ScoredGenes]:
        """Return the genes to predict, and the positions among them that are scored."""
        variable = self.by_variance[:N_SCORED]
        expressed = np.argsort(-self.mean, kind="stable")[:N_SCORED]
        positions = np.union1d(variable, expressed)
        scored = ScoredGenes(
            np.searchsorted(positions, variable), np.searchsorted(positions, expressed)
        )
        return positions, scored


def share_genes(tables: Sequence[SpotTable]) -> SharedGenes:
    """Return the genes that all tables measure under one name.

    Raises
    ------
    ValueError
        The tables share no gene, are of several species, or have no raw counts.
    """
    opened = {table.name: table.open_table() for table in tables}
    for name, adata in opened.items():
        check_unique(adata, name)
    check_one_species(opened)
    lookups = open_lookups(opened)
    is_gene = {name: find_genes(adata) for name, adata in opened.items()}
    choice = name_genes(opened, lookups, find_shared(lookups, is_gene))
    is_clear = np.ones(len(choice), dtype=bool)
    for name, lookup in lookups.items():
        is_clear &= lookup.find(choice.names, skip_ambiguous=True) == choice.columns[name]
    if not is_clear.any():
        raise ValueError("the stores share no gene whose name is clear in all of them")
    columns = {name: values[is_clear] for name, values in choice.columns.items()}
    train = [table for table in tables if table.side == TRAIN]
    mean, variance = _measure(train, columns)
    return SharedGenes(choice.names[is_clear], columns, mean, variance)


def _measure(
    train: Sequence[SpotTable], columns: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of log expression of each gene over all spots of some tables."""
    sums = np.zeros((2, len(next(iter(columns.values())))))
    n_spots = 0
    for table in train:
        for block in log_normalized_blocks(table.open_table()):
            values = block[:, columns[table.name]].astype(np.float64)
            sums[0] += np.asarray(values.sum(axis=0)).ravel()
            sums[1] += np.asarray(values.multiply(values).sum(axis=0)).ravel()
            n_spots += values.shape[0]
    mean = sums[0] / n_spots
    return mean, np.maximum(sums[1] / n_spots - mean**2, 0)


def expression_of(table: SpotTable, genes: SharedGenes, positions: np.ndarray) -> np.ndarray:
    """Return log1p of counts per 10,000 (n_spots, n_genes) of some of the shared genes."""
    return np.concatenate(list(_blocks(table, genes, positions)))


def _blocks(table: SpotTable, genes: SharedGenes, positions: np.ndarray) -> Iterator[np.ndarray]:
    yield from profiles(table.open_table(), None, genes.columns[table.name][positions])


def fit_components(
    tables: Sequence[SpotTable], genes: SharedGenes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit principal components of log expression on the training side.

    The covariance is summed table by table, so that no matrix of all spots is in memory.

    Returns
    -------
    The genes (n_genes,), their means (n_genes,) and the components (n_genes, n_components). The
    largest weight of each component is positive.
    """
    positions = np.sort(genes.by_variance[:N_VARIABLE])
    mean = genes.mean[positions]
    covariance = np.zeros((len(positions), len(positions)))
    n_spots = 0
    for table in tables:
        if table.side != TRAIN:
            continue
        for block in _blocks(table, genes, positions):
            centered = block.astype(np.float64) - mean
            covariance += centered.T @ centered
            n_spots += len(block)
    n_components = min(N_COMPONENTS, n_spots, len(positions))
    _, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1][:, :n_components]
    largest = np.abs(components).argmax(axis=0)
    return positions, mean, components * np.sign(components[largest, np.arange(n_components)])
