"""Gene programs: genes with weights, or a set of genes, and their columns in tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview, warn
from stp.genes.gene_choice import (
    GeneChoice,
    check_one_gene_each,
    find_shared,
    name_genes,
    open_lookups,
)
from stp.genes.gene_lookup import GeneLookup, check_repeated_genes, missing_genes_message
from stp.tables.features import find_genes
from stp.tables.profiles import check_unique
from stp.tables.table import as_list

if TYPE_CHECKING:
    from anndata import AnnData

MIN_SHARE = 0.5  # of the weights of a program that all tables must measure


@dataclass(frozen=True)
class GeneProgram:
    """Genes with weights that all tables measure, and the names that are left out."""

    genes: GeneChoice
    weights: np.ndarray  # (n_genes,)
    missing: list[str]

    def __len__(self) -> int:
        return len(self.genes)


def find_program(
    tables: Mapping[str, "AnnData"], genes: Mapping[str, float] | Iterable[str]
) -> GeneProgram:
    """Return the genes of a program that all tables measure, and warn of those that are left out.

    Parameters
    ----------
    tables
        Measured tables by their labels.
    genes
        A dictionary of weights, or names of genes that all have the weight 1.

    Raises
    ------
    KeyError
        Less than half of the weights are of genes that all tables measure.
    ValueError
        The program is empty, a weight is 0 or no number, a gene is named twice, or a name is that
        of several genes.
    """
    names, weights = _read_weights(genes)
    for label, table in tables.items():
        check_unique(table, label)
    lookups = open_lookups(tables)
    columns = {label: lookup.find(names) for label, lookup in lookups.items()}
    is_missing = np.zeros(len(names), dtype=bool)
    for label, table_columns in columns.items():
        is_missing |= (table_columns < 0) | ~find_genes(tables[label])[table_columns]
    missing = [name for name, is_lost in zip(names, is_missing, strict=True) if is_lost]
    _check_loss(missing, weights, is_missing, lookups)
    columns = {label: table_columns[~is_missing] for label, table_columns in columns.items()}
    measured = [name for name, is_lost in zip(names, is_missing, strict=True) if not is_lost]
    for table_columns in columns.values():
        check_repeated_genes(measured, table_columns)
    check_one_gene_each(lookups, columns, measured)
    return GeneProgram(name_genes(tables, lookups, columns), weights[~is_missing], missing)


def choose_shared(tables: Mapping[str, "AnnData"]) -> GeneChoice:
    """Return all genes that all tables measure.

    Raises
    ------
    ValueError
        The tables share no gene, or names of a table are not unique.
    """
    for label, table in tables.items():
        check_unique(table, label)
    lookups = open_lookups(tables)
    is_gene = {label: find_genes(table) for label, table in tables.items()}
    return name_genes(tables, lookups, find_shared(lookups, is_gene))


def _read_weights(genes: Mapping[str, float] | Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Return the names of the genes and their weights (n_genes,)."""
    if isinstance(genes, Mapping):
        names = [str(name) for name in genes]
        weights = np.array([_to_number(name, weight) for name, weight in genes.items()])
    else:
        names = as_list(genes)
        weights = np.ones(len(names))
    if not names:
        raise ValueError("genes is empty; name at least one gene")
    is_bad = ~np.isfinite(weights) | (weights == 0)
    if is_bad.any():
        name = names[int(np.argmax(is_bad))]
        raise ValueError(
            f"the weight of {name!r} is {weights[is_bad][0]:g}; give each gene a finite weight "
            "that is not 0, or leave it out"
        )
    return names, weights


def _to_number(name: str, weight: object) -> float:
    try:
        return float(weight)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the weight of {name!r} is {weight!r}, which is no number; genes is a dictionary of "
            "names and weights, or a list of names"
        ) from error


def _check_loss(
    missing: Sequence[str],
    weights: np.ndarray,
    is_missing: np.ndarray,
    lookups: Mapping[str, GeneLookup],
) -> None:
    """Raise KeyError if most of a program is not measured, and warn if a part is not."""
    if not missing:
        return
    size = np.abs(weights)
    label = "the reference" if len(lookups) == 1 else f"all of {list(lookups)}"
    message = missing_genes_message(list(missing), label, lookups.values())
    if size[~is_missing].sum() < MIN_SHARE * size.sum():
        raise KeyError(message)
    warn(
        f"{len(missing)} of {len(weights)} genes of the program are left out, because they are "
        f"not in {label}: {preview(missing)}"
    )
