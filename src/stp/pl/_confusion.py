"""The confusion matrix of a linear probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.pl._figure import axes_or_new, figure_of, finish, set_titles
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
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
    table_key: str = "table",
    cmap: "str | Colormap" = "Blues",
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw which classes a linear probe confuses.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.linear_probe`.
    key
        Name of the probe.
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
    row's spots. The number of spots follows the name of each row. Nothing is returned if the figure
    is shown or your own.

    Raises
    ------
    KeyError
        There is no such probe.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain")
    >>> stp.pl.confusion(sdata)
    """
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    table = get_table(adata, table_key)
    probe = require(table, "uns", key, "stp.tl.linear_probe(adata, label_key)")
    counts = np.asarray(probe["confusion"])
    classes = [str(name) for name in probe["classes"]]
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    side = 2.2 + 0.6 * len(classes)
    panel = axes_or_new(ax, (side + NAMES_INCHES, side))
    display = ConfusionMatrixDisplay(shares, display_labels=classes)
    display.plot(
        ax=panel,
        cmap=cmap,
        values_format=".2f",
        im_kw={"vmin": 0, "vmax": 1},
        xticks_rotation=45,
        colorbar=False,
    )
    bar = panel.inset_axes((1.03, 0.0, 0.045, 1.0))  # as tall as the matrix
    panel.figure.colorbar(display.im_, cax=bar, label="share of the row's spots")
    scores = probe["scores"]
    default_title = f"balanced accuracy {float(np.average(scores['balanced_accuracy'])):.2f}"
    if len(scores) > 1:
        default_title += f", mean of {len(scores)} folds"
    plt.setp(panel.get_xticklabels(), ha="right", rotation_mode="anchor")
    panel.set(
        xlabel="predicted",
        ylabel=f"obs[{probe['params']['label_key']!r}]",
        yticklabels=[f"{name} ({n})" for name, n in zip(classes, totals, strict=True)],
        title=default_title,
    )
    set_titles([panel], title)
    return finish(figure_of(panel), ax=ax, show=show, save=save, return_fig=return_fig)
