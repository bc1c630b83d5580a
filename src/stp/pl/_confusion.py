"""The confusion matrix of a linear probe."""

from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


def confusion(
    adata: "AnnData | SpatialData", *, key: str = keys.PROBE, table_key: str = "table"
) -> "Figure":
    """Draw which classes a linear probe confuses.

    Parameters
    ----------
    adata
        Table annotated by :func:`stp.tl.linear_probe`.
    key
        Name of the probe.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A figure with labels as rows and predictions as columns. Colors and numbers show the share of a
    row's spots. The number of spots follows the name of each row.

    Raises
    ------
    KeyError
        There is no such probe.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain")
    >>> figure = stp.pl.confusion(sdata)
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
    figure, ax = plt.subplots(figsize=(side + 1, side), layout="constrained")
    display = ConfusionMatrixDisplay(shares, display_labels=classes)
    display.plot(
        ax=ax, cmap="Blues", values_format=".2f", im_kw={"vmin": 0, "vmax": 1}, xticks_rotation=45
    )
    scores = probe["scores"]
    title = f"balanced accuracy {float(np.average(scores['balanced_accuracy'])):.2f}"
    if len(scores) > 1:
        title += f", mean of {len(scores)} folds"
    ax.set(
        xlabel="predicted",
        ylabel=f"obs[{probe['params']['label_key']!r}]",
        yticklabels=[f"{name} ({n})" for name, n in zip(classes, totals, strict=True)],
        title=title,
    )
    return figure
