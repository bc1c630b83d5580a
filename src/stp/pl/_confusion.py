"""What probes read: confusion of classes, and batches beside biology."""

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
    display.plot(
        ax=ax, cmap="Blues", values_format=".2f", im_kw={"vmin": 0, "vmax": 1}, xticks_rotation=45
    )
    scores = found["scores"]
    accuracy = float(np.average(scores["balanced_accuracy"]))
    ax.set(
        xlabel="predicted",
        ylabel=f"obs[{found['params']['label_key']!r}]",
        yticklabels=[
            f"{name} ({total})" for name, total in zip(classes, totals[:, 0], strict=True)
        ],
        title=f"balanced accuracy {accuracy:.2f}"
        + (f", mean of {len(scores)} folds" if len(scores) > 1 else ""),
    )
    return figure
