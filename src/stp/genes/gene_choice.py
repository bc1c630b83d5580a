"""The genes that are predicted or scored, and their columns in tables with other kinds of names."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.genes.gene_lookup import (
    SYMBOL_COLUMNS,
    GeneLookup,
    check_repeated_genes,
    human_ids,
    human_symbols,
    missing_genes_message,
)
from stp.genes.species import guess_species, is_compatible
from stp.genes.table_genes import gene_names
from stp.tables.features import TYPE_COLUMNS, find_genes
from stp.tables.profiles import check_unique
from stp.tables.table import as_list

if TYPE_CHECKING:
    from anndata import AnnData

GENE_COLUMNS = ("gene_ids", *SYMBOL_COLUMNS, *TYPE_COLUMNS)


@dataclass(frozen=True)
class GeneChoice:
    """Genes by their names, and their columns in each table."""

    names: np.ndarray  # (n_genes,) symbols if they are known, else other names; all are unique
    ids: np.ndarray  # (n_genes,) Ensembl ids, "" if unknown
    columns: dict[str, np.ndarray]  # (n_genes,) by label of the table

    def __len__(self) -> int:
        return len(self.names)


def choose_genes(tables: Mapping[str, "AnnData"], genes: Iterable[str] | None) -> GeneChoice:
    """Return the genes to predict: `genes`, or else the highly variable ones of all tables.

    Names are symbols or Ensembl ids, and each table may have names of either kind.

    Raises
    ------
    KeyError
        A gene is missing, or no gene is named and none is marked as highly variable.
    ValueError
        The tables share no gene, `genes` is empty or names a gene twice, a name is that of
        different genes, or names of a table are not unique.
    """
    for label, table in tables.items():
        check_unique(table, label)
    lookups = open_lookups(tables)
    if genes is None:
        columns = _find_highly_variable(tables, lookups)
    else:
        columns = _find_named(tables, lookups, as_list(genes))
    return name_genes(tables, lookups, columns)


def find_predicted(details: Mapping[str, Any], lookup: GeneLookup) -> np.ndarray:
    """Return the column of each predicted gene (n_genes,) in a table, -1 if it is not measured.

    Parameters
    ----------
    details
        Record of the prediction in `uns`.
    lookup
        Genes of the table.
    """
    names, ids = predicted_genes(details)
    return lookup.find_genes(ids, names, skip_ambiguous=True)


def predicted_genes(details: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names and the Ensembl ids of the genes of a prediction, "" for unknown ids."""
    names = [str(name) for name in details["genes"]]
    ids = [str(gene_id) for gene_id in details.get("gene_ids", [""] * len(names))]
    return names, ids


def require_predicted(details: Mapping[str, Any], table: "AnnData", label: str) -> np.ndarray:
    """Return the column of each predicted gene (n_genes,) in a table.

    Raises
    ------
    KeyError
        The table lacks a gene.
    """
    check_unique(table, label)
    columns = find_predicted(details, GeneLookup(table, label))
    names, _ = predicted_genes(details)
    missing = [name for name, column in zip(names, columns, strict=True) if column < 0]
    if missing:
        raise KeyError(
            f"{len(missing)} predicted genes are not measured in {label}, e.g. {missing[:3]}; "
            "choose from its genes"
        )
    return columns


def locate_in_prediction(details: Mapping[str, Any], genes: list[str]) -> list[int]:
    """Return the position of each gene in a prediction, -1 if it was not predicted.

    Genes are symbols or Ensembl ids.
    """
    names, ids = predicted_genes(details)
    positions = {gene_id: number for number, gene_id in enumerate(ids) if gene_id}
    positions |= {name: number for number, name in enumerate(names)}
    gene_positions = [positions.get(gene, -1) for gene in genes]
    others = [number for number, position in enumerate(gene_positions) if position < 0]
    if others and any(ids):
        for number, gene_id in zip(others, human_ids([genes[i] for i in others]), strict=True):
            gene_positions[number] = positions.get(gene_id, -1) if gene_id else -1
    return gene_positions


def ids_of_names(names: Iterable[str]) -> np.ndarray:
    """Return the Ensembl id of each gene (n_names,), "" unless the names are human or ids."""
    texts = list(names)
    if not is_compatible(guess_species(texts), "human"):
        return np.full(len(texts), "", dtype=object)
    return human_ids(texts)


def open_lookups(tables: Mapping[str, "AnnData"]) -> dict[str, GeneLookup]:
    """Return the genes of each table; tables with equal genes share one object."""
    lookups: dict[str, GeneLookup] = {}
    first_var = None
    first = None
    for label, table in tables.items():
        var = table.var[[key for key in GENE_COLUMNS if key in table.var]]
        if first is None:
            first_var = var
            first = GeneLookup(table, label)
        lookups[label] = first if var.equals(first_var) else GeneLookup(table, label)
    return lookups


def _find_named(
    tables: Mapping[str, "AnnData"], lookups: Mapping[str, GeneLookup], names: list[str]
) -> dict[str, np.ndarray]:
    """Return the columns of genes in each table, or raise an error if one lacks a gene."""
    if not names:
        raise ValueError(
            "genes is empty; name at least one, or leave it out for the highly variable ones"
        )
    columns: dict[str, np.ndarray] = {}
    is_missing = np.zeros(len(names), dtype=bool)
    lacking = []
    for label, lookup in lookups.items():
        columns[label] = lookup.find(names)
        is_lost = columns[label] < 0
        is_lost |= ~find_genes(tables[label])[columns[label]]
        if is_lost.any():
            lacking.append(lookup)
        is_missing |= is_lost
    if is_missing.any():
        label = "the reference" if len(tables) == 1 else f"all of {list(tables)}"
        missing = [name for name, is_lost in zip(names, is_missing, strict=True) if is_lost]
        raise KeyError(missing_genes_message(missing, label, lacking))
    for table_columns in columns.values():
        check_repeated_genes(names, table_columns)
    check_one_gene_each(lookups, columns, names)
    return columns


def check_one_gene_each(
    lookups: Mapping[str, GeneLookup], columns: Mapping[str, np.ndarray], names: list[str]
) -> None:
    """Raise ValueError if a name is that of genes with different Ensembl ids in two tables."""
    if len({id(lookup) for lookup in lookups.values()}) == 1:
        return
    first: dict[str, tuple[str, str]] = {}
    for label, lookup in lookups.items():
        for name, gene_id in zip(names, lookup.ids[columns[label]], strict=True):
            other_label, other_id = first.setdefault(name, (label, gene_id))
            if gene_id and not other_id:
                first[name] = (label, gene_id)
            if gene_id and other_id and gene_id != other_id:
                raise ValueError(
                    f"{name!r} is {other_id} in {other_label} and {gene_id} in {label}; name the "
                    "gene by its Ensembl id, or leave it out"
                )


def _find_highly_variable(
    tables: Mapping[str, "AnnData"], lookups: Mapping[str, GeneLookup]
) -> dict[str, np.ndarray]:
    """Return the columns of shared genes that at least one table marks as highly variable."""
    is_gene = {label: find_genes(table) for label, table in tables.items()}
    columns = find_shared(lookups, is_gene)
    n_shared = len(next(iter(columns.values())))
    is_variable = np.zeros(n_shared, dtype=bool)
    for label, table in tables.items():
        if "highly_variable" in table.var:
            marks = table.var["highly_variable"].isin([True]).to_numpy(dtype=bool)
            is_variable |= marks[columns[label]]
    if not is_variable.any():
        raise KeyError(
            "the reference marks no highly variable genes that all tables measure; pass genes=, "
            "or run scanpy.pp.highly_variable_genes on the reference first"
        )
    return {label: table_columns[is_variable] for label, table_columns in columns.items()}


def find_shared(
    lookups: Mapping[str, GeneLookup], is_candidate: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the columns of the genes that all tables measure, in the order of the first table.

    Parameters
    ----------
    lookups
        Genes of each table.
    is_candidate
        Whether each row of `var` (n_vars,) may be such a gene.

    Raises
    ------
    ValueError
        The tables share no gene.
    """
    first_label, first = next(iter(lookups.items()))
    columns = {first_label: np.flatnonzero(is_candidate[first_label])}
    for label, lookup in lookups.items():
        own = columns[first_label]
        if lookup is first:
            columns[label] = own.copy()
            continue
        names = np.where(first.symbols[own] != "", first.symbols[own], first.names[own])
        others = lookup.find_genes(first.ids[own], names, skip_ambiguous=True)
        is_shared = (others >= 0) & is_candidate[label][others]
        is_shared &= ~_is_repeated(others)
        columns = {key: table_columns[is_shared] for key, table_columns in columns.items()}
        columns[label] = others[is_shared]
    if not len(columns[first_label]):
        examples = "; ".join(
            f"{label} has {list(lookup.names[:3])}" for label, lookup in lookups.items()
        )
        raise ValueError(
            f"the tables share no gene: {examples}; give all of them the same kind of names"
        )
    return columns


def _is_repeated(columns: np.ndarray) -> np.ndarray:
    """Return whether each column occurs more than once: which of two genes it is, is unclear."""
    _, places, counts = np.unique(columns, return_inverse=True, return_counts=True)
    return counts[places] > 1


def name_genes(
    tables: Mapping[str, "AnnData"],
    lookups: Mapping[str, GeneLookup],
    columns: dict[str, np.ndarray],
) -> GeneChoice:
    """Return the genes with their symbols and ids, from the first table that has them."""
    first_label = next(iter(tables))
    n_genes = len(columns[first_label])
    ids = np.full(n_genes, "", dtype=object)
    symbols = ids.copy()
    for label, lookup in lookups.items():
        ids = np.where(ids == "", lookup.ids[columns[label]], ids)
        symbols = np.where(symbols == "", lookup.symbols[columns[label]], symbols)
    var_names = lookups[first_label].names[columns[first_label]]
    is_human = is_compatible(guess_species(gene_names(tables[first_label])), "human")
    if is_human:
        ids = _fill(ids, human_ids, symbols)
        symbols = _fill(symbols, human_symbols, ids)
    counts = Counter(symbols)
    is_shown = np.array([symbol != "" and counts[symbol] == 1 for symbol in symbols], dtype=bool)
    return GeneChoice(np.where(is_shown, symbols, var_names), ids, columns)


def _fill(values: np.ndarray, translate: Any, names: np.ndarray) -> np.ndarray:
    """Return values with "" replaced by a translation of the names, if there are any."""
    places = np.flatnonzero((values == "") & (names != ""))
    values = values.copy()
    if len(places):
        values[places] = translate(names[places])
    return values
