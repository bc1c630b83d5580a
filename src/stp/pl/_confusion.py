"""Confusion matrices of linear probes and of predicted slides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.pl._figure import axes_or_new, figure_of, finish, set_titles
from stp.pl._slide_scores import choose_targets
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

NAMES_INCHES = 2.0  # width of the names of classes and of the color bar


def confusion(
    adata: "AnnData | SpatialData",
    *,
    key: str = keys.PROBE,
    target: str | None = None,
    table_key: str = "table",
    cmap: "str | Colormap" = "Blues",
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw which classes a linear probe or a slide model confuses.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.linear_probe` or :func:`stp.tl.score_slides`.
    key
        Name of the probe, or of the scores: "stp_slide_scores".
    target
        Name of the target. By default all targets are drawn, each in its panel.
    table_key
        Name of the table in a SpatialData.
    cmap
        Color map of numbers: a color map of matplotlib, or its name.
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
    A figure with labels as rows and predictions as columns. Colors and numbers show the share of a
    row's spots or patients. Their number follows the name of each row. Nothing is returned if the
    figure is shown or your own.

    Raises
    ------
    KeyError
        There is no such probe, or no such target.
    ValueError
        No target has classes, or several targets do not fit your own axes.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain")
    >>> stp.pl.confusion(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(adata, table_key)
    result = _read_result(table, key)
    matrices = _slide_matrices(result, key, target) if "curves" in result else [_probe(result)]
    if ax is not None and len(matrices) > 1:
        raise ValueError(f"ax= has room for one target of {len(matrices)}; pass target=")
    side = 2.2 + 0.6 * max(len(matrix.classes) for matrix in matrices)
    if len(matrices) == 1:
        panels = [axes_or_new(ax, (side + NAMES_INCHES, side))]
    else:
        size = ((side + NAMES_INCHES) * len(matrices), side)
        axes = plt.subplots(1, len(matrices), figsize=size, layout="constrained")[1]
        panels = list(axes.flat)
    for panel, matrix in zip(panels, matrices, strict=True):
        _draw(panel, matrix, cmap)
    set_titles(panels, title)
    return finish(figure_of(panels[0]), ax=ax, show=show, save=save, return_fig=return_fig)


class Matrix(NamedTuple):
    """Counts of labels and predictions, and the texts of their panel."""

    classes: list[str]
    counts: np.ndarray  # (n_classes, n_classes)
    label_key: str
    unit: str  # "spots" or "patients"
    title: str


def _read_result(table: "AnnData", key: str) -> Mapping[str, Any]:
    """Return a probe or scores of slides."""
    if key not in table.uns and keys.SLIDE_SCORES in table.uns:
        raise KeyError(
            f"adata.uns[{key!r}] is missing; pass key={keys.SLIDE_SCORES!r} to draw predicted "
            "slides, or run stp.tl.linear_probe(adata, label_key) first"
        )
    return require(table, "uns", key, "stp.tl.linear_probe(adata, label_key)")


def _probe(probe: Mapping[str, Any]) -> Matrix:
    scores = probe["scores"]
    title = f"balanced accuracy {float(np.average(scores['balanced_accuracy'])):.2f}"
    if len(scores) > 1:
        title += f", mean of {len(scores)} folds"
    classes = [str(name) for name in probe["classes"]]
    counts = np.asarray(probe["confusion"])
    return Matrix(classes, counts, probe["params"]["label_key"], "spots", title)


def _slide_matrices(result: Mapping[str, Any], key: str, target: str | None) -> list[Matrix]:
    """Return the matrices of all targets of classes, or of one."""
    names = choose_targets(result["curves"], target, key)
    entries = {name: result["confusion"][name] for name in names if name in result["confusion"]}
    if not entries:
        raise ValueError(f"uns[{key!r}] has no confusion of {', '.join(names)}: it has no classes")
    return [_slide_matrix(name, entry, result["scores"]) for name, entry in entries.items()]


def _slide_matrix(name: str, entry: Mapping[str, Any], scores: "pd.DataFrame") -> Matrix:
    is_row = (
        (scores["target"] == name)
        & (scores["score"] == "balanced_accuracy")
        & (scores["decision"] == entry["decision"])
    )
    row = scores[is_row].iloc[0]
    title = f"{name}: balanced accuracy {row['value']:.2f}"
    if np.isfinite(row["low"]):
        title += f" ({row['low']:.2f} to {row['high']:.2f})"
    if np.isfinite(entry["threshold"]):
        title += f"\nthreshold {entry['threshold']:.2f}"
    classes = [str(class_name) for class_name in entry["classes"]]
    return Matrix(classes, np.asarray(entry["counts"]), name, "patients", title)


def _draw(panel: "Axes", matrix: Matrix, cmap: "str | Colormap") -> None:
    """Draw the shares of each row."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    totals = matrix.counts.sum(axis=1)
    shares = matrix.counts / np.maximum(totals, 1)[:, None]
    display = ConfusionMatrixDisplay(shares, display_labels=matrix.classes)
    display.plot(
        ax=panel,
        cmap=cmap,
        values_format=".2f",
        im_kw={"vmin": 0, "vmax": 1},
        xticks_rotation=45,
        colorbar=False,
    )
    bar = panel.inset_axes((1.03, 0.0, 0.045, 1.0))  # as tall as the matrix
    panel.figure.colorbar(display.im_, cax=bar, label=f"share of the row's {matrix.unit}")
    plt.setp(panel.get_xticklabels(), ha="right", rotation_mode="anchor")
    panel.set(
        xlabel="predicted",
        ylabel=f"obs[{matrix.label_key!r}]",
        yticklabels=[f"{name} ({n})" for name, n in zip(matrix.classes, totals, strict=True)],
        title=matrix.title,
    )
