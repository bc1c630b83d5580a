"""Calibration of predicted probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.pl import _colors
from stp.pl._figure import figure_of, finish, set_titles
from stp.pl._slide_scores import (
    TargetCurves,
    class_colors,
    legend_below,
    read_curves,
    square,
    target_panels,
)
from stp.tables import keys

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def calibration(
    cohort: "AnnData",
    *,
    key: str = keys.SLIDE_SCORES,
    target: str | None = None,
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw whether predicted probabilities are the shares of patients that are positive.

    Parameters
    ----------
    cohort
        Table with a row per slide and scores.
    key
        Name of the scores, which :func:`stp.tl.score_slides` wrote.
    target
        Name of the target. By default all targets are drawn, each in its panel.
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
    A figure with a panel per target. Each point is a bin with about as many patients as the others,
    of all folds; its bar is the interval of the share after Wilson. On the dotted line
    probabilities are right. The categories of `palette` are the classes. Nothing is returned if the
    figure is shown or your own.

    Raises
    ------
    KeyError
        There are no scores, or there is no such target.
    ValueError
        No target has classes, or the target has none.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=2)
    >>> models = stp.train.cross_validate_slides(cohort, "runs/cv", targets=target, config=config)
    >>> stp.tl.predict_slides(cohort, "runs/cv")
    >>> stp.tl.score_slides(cohort)
    >>> stp.pl.calibration(cohort)
    """
    targets = read_curves(cohort, key, "calibration", target)
    n_classes = max(len(one.classes()) for one in targets)
    panels = target_panels(len(targets), 1 + 3 * n_classes, ax)
    for panel, one in zip(panels, targets, strict=True):
        _draw_bins(panel, one, palette)
    set_titles(panels, title)
    return finish(figure_of(panels[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _draw_bins(ax: "Axes", target: TargetCurves, palette: _colors.Palette | None) -> None:
    """Draw the bins of all classes of a target, and the line of right probabilities."""
    ax.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for name, color in class_colors(palette, target.classes()).items():
        bins = target.curve(name)
        observed = bins["observed"].to_numpy()
        # The interval of Wilson contains the share; rounding may put it outside by a hair.
        bars = np.stack([observed - bins["low"], bins["high"] - observed]).clip(0)
        texts = [
            f"{name}: {target.n_text(name)}",
            f"slope {target.text('calibration_slope', name)}, "
            f"intercept {target.text('calibration_intercept', name)}",
            f"calibration error {target.text('ece', name)}",
        ]
        ax.errorbar(
            bins["predicted"],
            observed,
            yerr=bars,
            color=color,
            marker="o",
            markersize=4,
            elinewidth=1,
            capsize=2,
            label="\n".join(texts),
        )
    square(ax)
    ax.set(xlabel="predicted probability", ylabel="share of patients", title=target.name)
    legend_below(ax, f"bars and numbers with {target.interval_name}")
