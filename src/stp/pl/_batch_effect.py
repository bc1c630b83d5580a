"""Batch effects of embeddings as bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.pl import _colors
from stp.pl._figure import axes_or_new, figure_of, finish, set_titles
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def batch_effect(
    adata: "AnnData | SpatialData",
    *,
    key: str = keys.BATCH_EFFECT,
    table_key: str = "table",
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw how well each embedding predicts the batch and the label of a spot.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.batch_effect`.
    key
        Name of the result in `uns`.
    table_key
        Name of the table in a SpatialData.
    palette
        Colors of categories: a list in their order, a mapping from each category to its color, or
        the name of a color map of matplotlib.
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    ax
        Axes of your own figure to draw on. That figure is then shown only if `show` is true.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with two bars for each embedding, one for batches and one for labels. Dotted lines mark
    chance. Good embeddings have batches near chance and labels far above it. The categories of
    `palette` are "batch" and "label". Nothing is returned if the figure is shown or your own.

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
    >>> stp.pl.batch_effect(adata)
    """
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
    colors = _colors.TEN[:2] if palette is None else _colors.of_palette(palette, kinds)
    panel = axes_or_new(ax, (2 + 1.6 * len(scores), 3.6))
    for number, kind in enumerate(kinds):
        x = positions + (number - (len(kinds) - 1) / 2) * width
        accuracy = scores[f"{kind}_accuracy"]
        chance = scores[f"{kind}_chance"]
        bars = panel.bar(x, accuracy, width=0.92 * width, color=colors[number], label=names[kind])
        panel.bar_label(bars, fmt="%.2f", fontsize=8)
        left, right = x - width / 2, x + width / 2
        panel.hlines(chance, left, right, color="black", linestyle=":", zorder=3)
    panel.plot([], [], color="black", linestyle=":", label="chance")
    panel.set(
        ylim=(0, 1.08),
        ylabel="balanced accuracy",
        xticks=positions,
        xticklabels=list(scores.index),
    )
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False, fontsize=8)
    set_titles([panel], title)
    return finish(figure_of(panel), ax=ax, show=show, save=save, return_fig=return_fig)
