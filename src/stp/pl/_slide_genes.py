"""The genes behind a slide model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview
from stp.pl import _colors
from stp.pl._figure import axes_or_new, figure_of, finish, set_titles
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAKER = "stp.tl.explain_slides(cohort, model)"
WIDTH_INCHES = 4.6  # of a panel
ROW_INCHES = 0.24  # of a gene
MIN_ROWS = 5  # for which a panel has room
EDGE_INCHES = 1.1  # title, axis and its name
MAX_COLUMNS = 3
SIGNS = ("positive", "negative")
SIGN_COLORS = (_colors.RED, _colors.BLUE)
Q_LIMIT = 0.05
SMALL = 8  # font size of q


def slide_genes(
    cohort: "AnnData",
    *,
    key: str = keys.SLIDE_GENES,
    target: str | None = None,
    side: str = "all",
    n_genes: int = 20,
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the genes behind a slide model: effect, interval over patients, and q.

    Parameters
    ----------
    cohort
        Table with genes of :func:`stp.tl.explain_slides`; or measured spots with those of
        :func:`stp.tl.explain_by_spots`, whose `key` is "stp_spot_genes".
    key
        Name of the genes in `uns`.
    target
        Name of the target. By default all targets are drawn, each in its panel.
    side
        Patients: "all", or those that are predicted "high" or "low".
    n_genes
        Number of genes with the strongest effects.
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
    A figure with a panel per output, and a row per gene, the strongest effect on top. A dot is the
    mean correlation of the contribution of a tile and the gene, and a line its interval over
    patients. Dots are filled if q is below 0.05, and q stands on the right. The categories of
    `palette` are "positive" and "negative". Nothing is returned if the figure is shown or your own.

    Raises
    ------
    KeyError
        There are no genes, or there is no such target.
    ValueError
        There is no such side, no gene has an effect, or several outputs do not fit your axes.

    Examples
    --------
    >>> genes = pd.DataFrame(
    ...     {
    ...         "target": "EGFR",
    ...         "output": "mutated",
    ...         "side": "all",
    ...         "gene": ["KRT8", "DCN"],
    ...         "effect": [0.6, -0.4],
    ...         "low": [0.5, -0.5],
    ...         "high": [0.7, -0.2],
    ...         "q": [0.01, 0.2],
    ...     }
    ... )
    >>> cohort.uns["stp_slide_genes"] = {"genes": genes}
    >>> stp.pl.slide_genes(cohort)
    """
    genes = _choose_rows(cohort, key, target, side)
    outputs = list(genes[["target", "output"]].drop_duplicates().itertuples(index=False))
    if ax is not None and len(outputs) > 1:
        raise ValueError(
            f"ax= has room for one output and there are {len(outputs)}; pass target=, or no ax"
        )
    colors = SIGN_COLORS if palette is None else _colors.of_palette(palette, SIGNS)
    n_rows = int(genes.groupby(["target", "output"]).size().clip(upper=n_genes).max())
    panels = _new_panels(len(outputs), n_rows, ax)
    for panel, output in zip(panels, outputs, strict=True):
        is_own = (genes["target"] == output.target) & (genes["output"] == output.output)
        _draw_genes(panel, genes[is_own].head(n_genes), dict(zip(SIGNS, colors, strict=True)))
        same = output.target == output.output
        panel.set_title(output.target if same else f"{output.target}: {output.output}")
    set_titles(panels, title)
    return finish(figure_of(panels[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _choose_rows(cohort: "AnnData", key: str, target: str | None, side: str) -> "pd.DataFrame":
    """Return the rows of a target and a side whose effect is known, strongest first."""
    entry = require(get_table(cohort), "uns", key, MAKER)
    if "genes" not in entry:
        raise KeyError(f"uns[{key!r}] has no genes; run {MAKER}, or pass its key=")
    genes = entry["genes"]
    targets = list(dict.fromkeys(genes["target"]))
    if target is not None and target not in targets:
        raise KeyError(f"uns[{key!r}] has no target {target!r}; it has {preview(targets, 10)}")
    if target is not None:
        genes = genes[genes["target"] == target]
    if "side" in genes:
        sides = list(dict.fromkeys(genes["side"].astype(str)))
        if side not in sides:
            raise ValueError(
                f"uns[{key!r}] has no side {side!r}, but {preview(sides)}; a side needs 6 patients"
            )
        genes = genes[genes["side"] == side]
    elif side != "all":
        raise ValueError(f"uns[{key!r}] is of measured spots, which have no side; leave out side=")
    genes = genes[np.isfinite(genes["effect"].to_numpy(dtype=float))]
    if genes.empty:
        raise ValueError(f"no gene of uns[{key!r}] has an effect")
    return genes


def _new_panels(n_panels: int, n_genes: int, ax: "Axes | None") -> "list[Axes]":
    """Return the user's axes, or axes of a new figure with a panel per output."""
    import matplotlib.pyplot as plt

    height = EDGE_INCHES + ROW_INCHES * max(n_genes, MIN_ROWS)
    if n_panels == 1:
        return [axes_or_new(ax, (WIDTH_INCHES, height))]
    n_columns = min(n_panels, MAX_COLUMNS)
    n_rows = -(-n_panels // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(WIDTH_INCHES * n_columns, height * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for panel in axes.flat[n_panels:]:
        panel.set_visible(False)
    return list(axes.flat[:n_panels])


def _draw_genes(ax: "Axes", genes: "pd.DataFrame", colors: dict[str, str]) -> None:
    """Draw a row per gene, the first on top."""
    effect = genes["effect"].to_numpy(dtype=float)
    low, high = (genes[name].to_numpy(dtype=float) for name in ("low", "high"))
    q = genes["q"].to_numpy(dtype=float)
    rows = np.arange(len(genes))
    sign_colors = [colors[SIGNS[int(value < 0)]] for value in effect]
    ax.axvline(0, color="gray", linewidth=0.8)
    ax.hlines(rows, low, high, colors=sign_colors, linewidth=1.5)
    faces = [
        color if value < Q_LIMIT else "white" for color, value in zip(sign_colors, q, strict=True)
    ]
    ax.scatter(effect, rows, s=26, c=faces, edgecolors=sign_colors, zorder=3)
    ax.set_yticks(rows, labels=genes["gene"].astype(str))
    ax.set_ylim(len(genes) - 0.5, -0.5)
    ax.set_xlabel("correlation with the contribution to the prediction")
    ax.spines[["top", "right"]].set_visible(False)
    for row, value in enumerate(q):
        text = "" if np.isnan(value) else f"q {_short(value)}"
        ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL)


def _short(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
