"""The genes of a table: which rows of `var` are genes, and which genes these are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp._log import preview
from stp.genes.matches import Names
from stp.genes.named_genes import NamedGenes
from stp.genes.species import guess_species, is_compatible
from stp.tables.features import CONTROL, NOT_A_GENE, find_genes, find_other_features
from stp.tables.table import has_value

if TYPE_CHECKING:
    from anndata import AnnData

AUTO = "auto"
_ENSEMBL_ID = r"(?:^|[^A-Za-z0-9])ENS[A-Z]*G\d{11}"
# More than this share of upper-case names are no symbols of mouse or rat.
_MAX_UPPER_CASE = 0.8


class TableGenes(NamedTuple):
    """The rows of `var` of a table: their names, and the genes that they are."""

    names: np.ndarray  # (n_vars,)
    matches: Names  # of all rows; a row that is no gene has the rule "not a gene" or "control"
    is_gene: np.ndarray  # (n_vars,) bool


def gene_names(adata: "AnnData", gene_ids_key: str | None = AUTO) -> np.ndarray:
    """Return the gene names (n_vars,) in a column of `var`.

    "auto" takes `gene_ids` if it holds Ensembl ids, else `var_names`. None takes `var_names`. A
    gene without a value in the column keeps its name in `var_names`.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        By "auto", `gene_ids` and `var_names` are genes of different species.
    """
    if gene_ids_key == AUTO:
        return _choose_names(adata)
    if gene_ids_key is None:
        return adata.var_names.to_numpy().astype(object)
    if gene_ids_key not in adata.var:
        raise KeyError(
            f"adata.var[{gene_ids_key!r}] is missing; "
            f"pass gene_ids_key= one of {list(adata.var)}, or None for var_names"
        )
    return _fill_names(adata, gene_ids_key)


def recognize_table(
    vocabulary: NamedGenes, adata: "AnnData", gene_ids_key: str | None = AUTO
) -> TableGenes:
    """Return which gene of the vocabulary each row of `var` is.

    Raises
    ------
    ValueError
        No row is a gene, the genes are of another species, or the vocabulary has none of them.
    """
    names = gene_names(adata, gene_ids_key)
    reasons, types = find_other_features(adata)
    is_candidate = reasons == ""
    if adata.n_vars and not is_candidate.any():
        raise ValueError(
            f"no row of var is a gene: the types of features are {preview(sorted(set(types)))}; "
            "pass a table with gene expression"
        )
    matches = vocabulary.recognize(names[is_candidate])
    index = np.full(adata.n_vars, -1, np.int64)
    index[is_candidate] = matches.index
    rule = reasons
    rule[is_candidate] = matches.rule
    note = types
    note[is_candidate] = matches.note
    return TableGenes(names, Names(index, rule, note), are_genes(rule))


def check_one_species(tables: Mapping[str, "AnnData"]) -> None:
    """Raise ValueError if the genes of tables are of different species."""
    first_label = ""
    first_species = None
    for label, table in tables.items():
        species = guess_species(gene_names(table)[find_genes(table)])
        if not is_compatible(species, first_species):
            raise ValueError(
                f"{first_label} has genes of {first_species} and {label} those of {species}; "
                "pass references of one species"
            )
        if first_species is None:
            first_label = label
            first_species = species


def are_genes(rule: np.ndarray) -> np.ndarray:
    """Return for each rule (n_vars,) whether its row is a gene, of whatever kind."""
    return ~np.isin(rule.astype(str), [NOT_A_GENE, CONTROL])


def _choose_names(adata: "AnnData") -> np.ndarray:
    """Return `gene_ids` if most of them are Ensembl ids, else `var_names`."""
    var_names = adata.var_names.to_numpy().astype(object)
    column = adata.var.get("gene_ids")
    if column is None or column.astype(str).str.contains(_ENSEMBL_ID).mean() <= 0.5:
        return var_names
    names = _fill_names(adata, "gene_ids")
    species = guess_species(names)
    other = guess_species(var_names)
    if other is None and species in ("mouse", "rat") and _is_upper_case(var_names):
        other = "human"
    if not is_compatible(species, other):
        raise ValueError(
            f"var['gene_ids'] holds genes of {species} ({preview(names)}) and var_names those of "
            f"{other} ({preview(var_names)}); choose by gene_ids_key='gene_ids', or by "
            "gene_ids_key=None for var_names"
        )
    return names


def _fill_names(adata: "AnnData", key: str) -> np.ndarray:
    column = adata.var[key]
    return np.where(has_value(column), column.to_numpy(dtype=object), adata.var_names)


def _is_upper_case(names: np.ndarray) -> bool:
    return bool(np.mean([str(name).isupper() for name in names]) > _MAX_UPPER_CASE)
