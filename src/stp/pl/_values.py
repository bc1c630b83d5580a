"""Values of spots by name: columns of `obs`, measured genes and predicted genes."""

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.genes.gene_choice import locate_in_prediction, predicted_genes
from stp.genes.gene_lookup import GeneLookup
from stp.pl._gene_pairs import PREDICT_CALL
from stp.tables.counts import get_layer, has_counts
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles
from stp.tables.table import require

if TYPE_CHECKING:
    from anndata import AnnData


class SpotValues(NamedTuple):
    """Values of all spots, with the words that a figure needs."""

    values: Any  # (n_obs,) categories, booleans or numbers
    title: str
    units: str  # "" for columns of obs


def read_values(table: "AnnData", name: str, key: str | None, layer: str | None) -> SpotValues:
    """Return a column of `obs`, or the expression of a gene.

    The expression is that of the prediction `key`. If `key` is None, it is the measured
    expression, or that of the only prediction with this gene if the gene is not measured.

    Raises
    ------
    KeyError
        There is no such column, gene or prediction.
    ValueError
        The name is a column and a gene, several predictions have the gene, or gene names are not
        unique.
    """
    if key is not None:
        require(table, "obsm", key, PREDICT_CALL)
        require(table, "uns", key, PREDICT_CALL)
    if name in table.obs:
        _check_no_gene(table, name, key)
        return SpotValues(table.obs[name].array, name, "")
    has_values = layer is not None or table.X is not None
    if key is None and has_values:
        lookup = GeneLookup(table)
        (column,) = lookup.find([name])
        if column >= 0:
            return _read_measured(table, lookup, int(column), layer)
    positions = _find_predictions(table, name, key)
    if not positions:
        raise KeyError(_unknown_name(table, name, key))
    if len(positions) > 1:
        raise ValueError(f"several predictions have {name!r}; pass key= one of {list(positions)}")
    ((prediction_key, column),) = positions.items()
    prediction = table.uns[prediction_key]
    values = np.asarray(table.obsm[prediction_key])[:, column]
    gene = predicted_genes(prediction)[0][column]
    return SpotValues(values, f"{gene}, predicted", prediction.get("units", LOG_COUNTS))


def _check_no_gene(table: "AnnData", name: str, key: str | None) -> None:
    """Raise ValueError if a column of `obs` has the name of a gene that could be drawn."""
    is_measured = key is None and table.X is not None and GeneLookup(table).has_name(name)
    is_predicted = any(
        name in genes
        for prediction, genes in _list_predictions(table).items()
        if key in (None, prediction)
    )
    if is_measured or is_predicted:
        raise ValueError(
            f"{name!r} is a column of adata.obs and a gene; rename the column to draw either"
        )


def _read_measured(
    table: "AnnData", lookup: GeneLookup, column: int, layer: str | None
) -> SpotValues:
    """Return log counts if there are raw counts, or else the values as they are."""
    check_unique(table, "adata")
    gene = lookup.label_of(column)
    if has_counts(get_layer(table, layer)):
        values = np.concatenate(list(profiles(table, layer, np.array([column]))))[:, 0]
        return SpotValues(values, gene, LOG_COUNTS)
    units = "X" if layer is None else f"layer {layer!r}"
    values = np.asarray(table.obs_vector(lookup.names[column], layer=layer))
    return SpotValues(values, gene, units)


def _list_predictions(table: "AnnData") -> dict[str, list[str]]:
    """Return the genes of each prediction by its name."""
    return {
        key: predicted_genes(entry)[0]
        for key, entry in table.uns.items()
        if hasattr(entry, "keys") and "genes" in entry and key in table.obsm
    }


def _find_predictions(table: "AnnData", gene: str, key: str | None) -> dict[str, int]:
    """Return the position of a gene in each prediction that has it; only in `key` if it is one."""
    positions = {}
    for name in _list_predictions(table):
        if key in (None, name):
            (position,) = locate_in_prediction(table.uns[name], [gene])
            if position >= 0:
                positions[name] = position
    return positions


def _unknown_name(table: "AnnData", name: str, key: str | None) -> str:
    predicted = [
        gene
        for prediction, genes in _list_predictions(table).items()
        for gene in genes
        if key in (None, prediction)
    ]
    measured: list[str] = []
    if key is None:
        lookup = GeneLookup(table)
        measured = [*lookup.names, *(symbol for symbol in lookup.symbols if symbol)]
    names = [*map(str, table.obs), *measured, *predicted]
    similar = difflib.get_close_matches(name, dict.fromkeys(names), n=3)
    where = "a gene of adata.var_names or a predicted gene"
    if key is not None:
        where = f"a gene of the prediction {key!r}"
    remedy = f"did you mean {similar}?" if similar else f"the columns are {list(table.obs)}"
    return f"{name!r} is neither a column of adata.obs nor {where}; {remedy}"
