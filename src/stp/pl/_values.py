"""Values of spots by name: columns of `obs`, measured genes and predicted genes."""

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.tables.counts import get_layer, has_counts
from stp.tables.profiles import LOG_COUNTS, check_unique, profiles
from stp.tables.table import require

if TYPE_CHECKING:
    from anndata import AnnData

PREDICT_CALL = "stp.tl.predict_expression(adata, reference)"


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
    has_values = layer is not None or table.X is not None
    is_measured = key is None and has_values and name in table.var_names
    prediction_key = None if is_measured else _find_prediction(table, name, key)
    is_gene = is_measured or prediction_key is not None
    if name in table.obs:
        if is_gene:
            raise ValueError(
                f"{name!r} is a column of adata.obs and a gene; rename the column to draw either"
            )
        return SpotValues(table.obs[name].array, name, "")
    if is_measured:
        return _read_measured(table, name, layer)
    if prediction_key is None:
        raise KeyError(_unknown_name(table, name, key))
    prediction = table.uns[prediction_key]
    column = list(map(str, prediction["genes"])).index(name)
    values = np.asarray(table.obsm[prediction_key])[:, column]
    return SpotValues(values, f"{name}, predicted", prediction.get("units", LOG_COUNTS))


def _read_measured(table: "AnnData", gene: str, layer: str | None) -> SpotValues:
    """Return log counts if there are raw counts, or else the values as they are."""
    check_unique(table, "adata")
    if has_counts(get_layer(table, layer)):
        values = np.concatenate(list(profiles(table, layer, [gene])))[:, 0]
        return SpotValues(values, gene, LOG_COUNTS)
    units = "X" if layer is None else f"layer {layer!r}"
    return SpotValues(np.asarray(table.obs_vector(gene, layer=layer)), gene, units)


def _list_predictions(table: "AnnData") -> dict[str, list[str]]:
    """Return the genes of each prediction by its name."""
    return {
        key: [str(gene) for gene in entry["genes"]]
        for key, entry in table.uns.items()
        if hasattr(entry, "keys") and "genes" in entry and key in table.obsm
    }


def _find_prediction(table: "AnnData", gene: str, key: str | None) -> str | None:
    """Return the name of the prediction that has a gene, or None."""
    if key is not None:
        require(table, "obsm", key, PREDICT_CALL)
        require(table, "uns", key, PREDICT_CALL)
    predictions = _list_predictions(table)
    names = [name for name in predictions if key in (None, name) and gene in predictions[name]]
    if len(names) > 1:
        raise ValueError(f"several predictions have {gene!r}; pass key= one of {names}")
    return names[0] if names else None


def _unknown_name(table: "AnnData", name: str, key: str | None) -> str:
    predicted = [
        gene
        for prediction, genes in _list_predictions(table).items()
        for gene in genes
        if key in (None, prediction)
    ]
    measured = [] if key is not None else list(map(str, table.var_names))
    names = [*map(str, table.obs), *measured, *predicted]
    similar = difflib.get_close_matches(name, names, n=3)
    where = "a gene of adata.var_names or a predicted gene"
    if key is not None:
        where = f"a gene of the prediction {key!r}"
    remedy = f"did you mean {similar}?" if similar else f"the columns are {list(table.obs)}"
    return f"{name!r} is neither a column of adata.obs nor {where}; {remedy}"
