"""What probes read: confusion of classes, and batches beside biology."""

from typing import TYPE_CHECKING

import numpy as np

from stp import _keys
from stp._table import get_table, require
from stp.pl import _colors

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def confusion(adata: "AnnData | SpatialData", *, key: str = _keys.PROBE, table_key: str = "table") -> "Figure":
    """Draw which classes a probe takes for which.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.linear_probe`.
    key
        Name of the probe.
    table_key
        Table of a SpatialData.

    Returns
    -------
    The figure: rows are labels, columns predictions; color and number are the share of a row's spots, and rows name
    their number of spots.

    Raises
    ------
    KeyError
        There is no such probe.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain", learning_rate=1e-2)
    >>> figure = stp.pl.confusion(sdata)
    """
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    table = get_table(adata, table_key)
    found = require(table, "uns", key, "stp.tl.linear_probe(adata, label_key)")
    counts, classes = np.asarray(found["confusion"]), [str(name) for name in found["classes"]]
    totals = counts.sum(axis=1, keepdims=True)
    side = 2.2 + 0.6 * len(classes)
    figure, ax = plt.subplots(figsize=(side + 1, side), layout="constrained")
    display = ConfusionMatrixDisplay(counts / np.maximum(totals, 1), display_labels=classes)
    display.plot(ax=ax, cmap="Blues", values_format=".2f", im_kw={"vmin": 0, "vmax": 1}, xticks_rotation=45)
    scores = found["scores"]
    accuracy = float(np.average(scores["balanced_accuracy"]))
    ax.set(
        xlabel="predicted",
        ylabel=f"obs[{found['params']['label_key']!r}]",
        yticklabels=[f"{name} ({total})" for name, total in zip(classes, totals[:, 0], strict=True)],
        title=f"balanced accuracy {accuracy:.2f}" + (f", mean of {len(scores)} folds" if len(scores) > 1 else ""),
    )
    return figure


def batch_effect(
    adata: "AnnData | SpatialData", *, key: str = _keys.BATCH_EFFECT, table_key: str = "table"
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
        name = f"obs[{params[f'{kind}_key']!r}]" + (", read across batches" if kind == "label" else "")
        bars = ax.bar(x, scores[f"{kind}_accuracy"], width=0.92 * width, color=_colors.TEN[number], label=name)
        ax.bar_label(bars, fmt="%.2f", fontsize=8)
        ax.hlines(scores[f"{kind}_chance"], x - width / 2, x + width / 2, color="black", linestyle=":", zorder=3)
    ax.plot([], [], color="black", linestyle=":", label="chance")
    ax.set(ylim=(0, 1.08), ylabel="balanced accuracy", xticks=np.arange(len(scores)), xticklabels=list(scores.index))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False, fontsize=8)
    return figure
