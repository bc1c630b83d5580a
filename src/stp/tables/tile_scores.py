"""Read the attention of tiles and their contributions to the outputs of a slide model."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.tables import keys
from stp.tables.table import require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MAKER = "stp.tl.score_tiles(adata, model)"
PERCENT = 100


class TileValues(NamedTuple):
    """A value for each tile, with the words that a figure or a file needs."""

    values: np.ndarray  # (n_obs,), NaN for spots without features
    title: str
    unit: str
    is_signed: bool


def attention_columns(table: "AnnData", key: str) -> dict[str, str]:
    """Return the columns of `obs` with the attention of each target, and the names of the targets.

    Raises
    ------
    KeyError
        Tiles have no scores of this name.
    """
    outputs = read_outputs(table, key)
    targets = list(dict.fromkeys(outputs["target"]))
    return {keys.label(key, target, len(targets)): target for target in targets}


def read_outputs(table: "AnnData", key: str) -> "pd.DataFrame":
    """Return the outputs of the model, a row each.

    Raises
    ------
    KeyError
        Tiles have no scores of this name.
    """
    entry = require(table, "uns", key, MAKER)
    if "outputs" not in entry:
        raise KeyError(f"adata.uns[{key!r}] has no scores of tiles; run {MAKER} first")
    require(table, "obsm", keys.contribution(key), MAKER)
    return entry["outputs"]


def default_outputs(outputs: "pd.DataFrame") -> list[str]:
    """Return the outputs that say all: of two classes only the positive one, or else the first."""
    names: list[str] = []
    for _, rows in outputs.groupby("target", sort=False):
        if (rows["kind"] == "classes").all() and len(rows) == 2:
            is_positive = rows["positive"].to_numpy(dtype=bool)
            rows = rows[is_positive] if is_positive.any() else rows[:1]
        names += rows.index.tolist()
    return names


def read_attention(table: "AnnData", key: str, column: str) -> TileValues:
    """Return the attention of each tile in percent of that of the patient."""
    columns = attention_columns(table, key)
    title = "attention" if len(columns) == 1 else f"{columns[column]}: attention"
    values = PERCENT * require(table, "obs", column, MAKER).to_numpy(dtype=float)
    return TileValues(values, title, "% of the patient's attention, per tile", is_signed=False)


def read_contribution(table: "AnnData", key: str, output: str) -> TileValues:
    """Return how far each tile moves a prediction, in a unit that has a meaning.

    Logits of classes have none, because only their differences decide. Of two classes, the
    contribution is to the log-odds of one against the other. Of more classes, it is to the logit
    above the mean of all classes. A value has its own units. An interval of survival has the
    log-odds of the event in it.

    Raises
    ------
    KeyError
        There is no such output.
    """
    outputs = read_outputs(table, key)
    if output not in outputs.index:
        raise KeyError(
            f"{output!r} is no output of uns[{key!r}]; choose from {outputs.index.tolist()}"
        )
    contributions = np.asarray(table.obsm[keys.contribution(key)], dtype=float)
    row = outputs.loc[output]
    values = contributions[:, outputs.index.get_loc(output)]
    title = f"{row['target']}: {row['label']}" if row["label"] else str(row["target"])
    if row["kind"] == "value":
        unit = f"contribution per tile, in units of {row['target']}"
    elif row["kind"] == "survival":
        unit = "contribution per tile, log-odds of the event"
    else:
        is_same = (outputs["target"] == row["target"]).to_numpy()
        n_classes = int(is_same.sum())
        mean = contributions[:, is_same].mean(axis=1)
        # The difference of two logits is twice the distance from their mean.
        values = (values - mean) * (2 if n_classes == 2 else 1)
        unit = f"contribution per tile, log-odds of {row['label']}"
        if n_classes > 2:
            unit = "contribution per tile, logit above the mean class"
    return TileValues(values * float(row["scale"]), title, unit, is_signed=True)
