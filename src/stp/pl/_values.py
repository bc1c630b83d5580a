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
    """Return a column of `obs`, or the expression of a gene, by its symbol or Ensembl id.

    The expression is that of the prediction `key`. If `key` is None, it is the measured
    expression, or that of the only prediction with this gene if the gene is not measured.

    Raises
    ------
    KeyError
        There is no such column, gene or prediction.
    ValueError
        The name is a column and a gene, several predictions or genes have the name, or gene names
        are not unique.
    """
    if name in table.obs:
        if name in table.var_names or _find_prediction(table, name, key) is not None:
            raise ValueError(
                f"{name!r} is a column of adata.obs and a gene; rename the column to draw either"
            )
        return SpotValues(table.obs[name].array, name, "")
    if key is None and (layer is not None or table.X is not None):
        lookup = GeneLookup(table)
        column = int(lookup.find([name])[0])
        if column >= 0:
            return _read_measured(table, lookup, column, layer)
    prediction_key = _find_prediction(table, name, key)
    if prediction_key is None:
        raise KeyError(_unknown_name(table, name, key))
    prediction = table.uns[prediction_key]
    (position,) = locate_in_prediction(prediction, [name])
    names, _ = predicted_genes(prediction)
    values = np.asarray(table.obsm[prediction_key])[:, position]
    title = f"{names[position]}, predicted"
    return SpotValues(values, title, prediction.get("units", LOG_COUNTS))


def _read_measured(
    table: "AnnData", lookup: GeneLookup, column: int, layer: str | None
) -> SpotValues:
    """Return log counts if there are raw counts, or else the values as they are."""
    check_unique(table, "adata")
    title = lookup.symbols[column] or lookup.names[column]
    if has_counts(get_layer(table, layer)):
        values = np.concatenate(list(profiles(table, layer, np.array([column]))))[:, 0]
        return SpotValues(values, title, LOG_COUNTS)
    units = "X" if layer is None else f"layer {layer!r}"
    values = table.obs_vector(lookup.names[column], layer=layer)
    return SpotValues(np.asarray(values), title, units)


def _list_predictions(table: "AnnData") -> dict[str, Any]:
    """Return the record of each prediction by its name."""
    return {
        key: entry
        for key, entry in table.uns.items()
        if hasattr(entry, "keys") and "genes" in entry and key in table.obsm
    }


def _find_prediction(table: "AnnData", gene: str, key: str | None) -> str | None:
    """Return the name of the prediction that has a gene, or None."""
    if key is not None:
        require(table, "obsm", key, PREDICT_CALL)
        require(table, "uns", key, PREDICT_CALL)
    names = [
        name
        for name, prediction in _list_predictions(table).items()
        if key in (None, name) and locate_in_prediction(prediction, [gene])[0] >= 0
    ]
    if len(names) > 1:
        raise ValueError(f"several predictions have {gene!r}; pass key= one of {names}")
    return names[0] if names else None


def _unknown_name(table: "AnnData", name: str, key: str | None) -> str:
    predicted = [
        gene
        for name_of_prediction, prediction in _list_predictions(table).items()
        for gene in predicted_genes(prediction)[0]
        if key in (None, name_of_prediction)
    ]
    measured = []
    if key is None:
        lookup = GeneLookup(table)
        measured = [*lookup.names, *filter(None, lookup.symbols)]
    names = [*map(str, table.obs), *measured, *predicted]
    similar = difflib.get_close_matches(name, names, n=3)
    where = "a gene of adata.var_names or a predicted gene"
    if key is not None:
        where = f"a gene of the prediction {key!r}"
    remedy = f"did you mean {similar}?" if similar else f"the columns are {list(table.obs)}"
    return f"{name!r} is neither a column of adata.obs nor {where}; {remedy}"
