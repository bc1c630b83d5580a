"""Batch effects of embeddings as bars."""

from typing import TYPE_CHECKING

import numpy as np

from stp.pl import _colors
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def batch_effect(
    adata: "AnnData | SpatialData", *, key: str = keys.BATCH_EFFECT, table_key: str = "table"
) -> "Figure":
    """Draw how well each embedding predicts the batch and the label of a spot.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.batch_effect`.
    key
        Name of the result in `uns`.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A figure with two bars for each embedding, one for batches and one for labels. Dotted lines mark
    chance. Good embeddings have batches near chance and labels far above it.

    Raises
    ------
    KeyError
        There is no such result.

    Examples
    --------
    >>> stp.tl.tokenize(adata, model)
    >>> stp.tl.embed_genes(adata, model)
    >>> adata.obs["half"] = (adata.obs["array_col"] > 25).astype(str)
    >>> stp.tl.batch_effect(adata, "half", use_reps=["X_stp_genes"])
    >>> figure = stp.pl.batch_effect(adata)
    """
    import matplotlib.pyplot as plt

    table = get_table(adata, table_key)
    result = require(table, "uns", key, "stp.tl.batch_effect(adata, batch_key)")
    scores = result["scores"]
    params = result["params"]
    kinds = [kind for kind in ("batch", "label") if f"{kind}_accuracy" in scores]
    names = {
        "batch": f"obs[{params['batch_key']!r}]",
        "label": f"obs[{params.get('label_key')!r}], read across batches",
    }
    positions = np.arange(len(scores))
    width = 0.8 / len(kinds)
    figure, ax = plt.subplots(figsize=(2 + 1.6 * len(scores), 3.6), layout="constrained")
    for number, kind in enumerate(kinds):
        x = positions + (number - (len(kinds) - 1) / 2) * width
        accuracy = scores[f"{kind}_accuracy"]
        chance = scores[f"{kind}_chance"]
        color = _colors.TEN[number]
        bars = ax.bar(x, accuracy, width=0.92 * width, color=color, label=names[kind])
        ax.bar_label(bars, fmt="%.2f", fontsize=8)
        left, right = x - width / 2, x + width / 2
        ax.hlines(chance, left, right, color="black", linestyle=":", zorder=3)
    ax.plot([], [], color="black", linestyle=":", label="chance")
    ax.set(
        ylim=(0, 1.08),
        ylabel="balanced accuracy",
        xticks=positions,
        xticklabels=list(scores.index),
    )
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False, fontsize=8)
    return figure
