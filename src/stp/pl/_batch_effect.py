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
    """Draw how well batches, and labels, can be read off each embedding.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.batch_effect`.
    key
        Name of the result.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The figure: for each embedding a bar for batches and one for labels, with a line at the chance of each. Good
    embeddings have batches near chance and labels far above it.

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
    found = require(table, "uns", key, "stp.tl.batch_effect(adata, batch_key)")
    scores, params = found["scores"], found["params"]
    kinds = [kind for kind in ("batch", "label") if f"{kind}_accuracy" in scores]
    width = 0.8 / len(kinds)
    figure, ax = plt.subplots(figsize=(2 + 1.6 * len(scores), 3.6), layout="constrained")
    for number, kind in enumerate(kinds):
        x = np.arange(len(scores)) + (number - (len(kinds) - 1) / 2) * width
        name = f"obs[{params[f'{kind}_key']!r}]" + (
            ", read across batches" if kind == "label" else ""
        )
        bars = ax.bar(
            x, scores[f"{kind}_accuracy"], width=0.92 * width, color=_colors.TEN[number], label=name
        )
        ax.bar_label(bars, fmt="%.2f", fontsize=8)
        ax.hlines(
            scores[f"{kind}_chance"],
            x - width / 2,
            x + width / 2,
            color="black",
            linestyle=":",
            zorder=3,
        )
    ax.plot([], [], color="black", linestyle=":", label="chance")
    ax.set(
        ylim=(0, 1.08),
        ylabel="balanced accuracy",
        xticks=np.arange(len(scores)),
        xticklabels=list(scores.index),
    )
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False, fontsize=8)
    return figure
