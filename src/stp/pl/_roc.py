"""ROC curves of predicted classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp.pl import _colors
from stp.pl._figure import figure_of, finish, set_titles
from stp.pl._slide_scores import (
    TargetCurves,
    class_colors,
    draw_curve,
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


def roc(
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
    """Draw ROC curves of patients with the area under them and its interval.

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
    A figure with a panel per target. Each curve is the mean over folds, with its pointwise interval
    as a band. A dot marks the stored threshold of a positive class. The categories of `palette` are
    the classes. Nothing is returned if the figure is shown or your own.

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
    >>> stp.pl.roc(cohort)
    """
    targets = read_curves(cohort, key, "roc", target)
    n_classes = max(len(one.classes()) for one in targets)
    panels = target_panels(len(targets), 1 + 3 * n_classes, ax)
    for panel, one in zip(panels, targets, strict=True):
        _draw_roc(panel, one, palette)
    set_titles(panels, title)
    return finish(figure_of(panels[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _draw_roc(ax: "Axes", target: TargetCurves, palette: _colors.Palette | None) -> None:
    """Draw the curves of all classes of a target, chance, and the stored threshold."""
    ax.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for name, color in class_colors(palette, target.classes()).items():
        curve = target.curve(name)
        label = f"{name}: {target.text('auroc', name)}\n{target.n_text(name)}"
        names = ("false_positive_share", "sensitivity")
        draw_curve(ax, curve, names, color, label)
        first = curve.iloc[0]
        ax.plot([0, 0], [0, first["sensitivity"]], color=color)  # the step at the left margin
        _mark_threshold(ax, target, name, color)
    square(ax)
    ax.set(xlabel="1 - specificity", ylabel="sensitivity", title=target.name)
    legend_below(ax, f"AUROC ({target.interval_name})")


def _mark_threshold(ax: "Axes", target: TargetCurves, name: str, color: str) -> None:
    sensitivity = target.row("sensitivity", name, "threshold")
    specificity = target.row("specificity", name, "threshold")
    if sensitivity is None or specificity is None:
        return
    x = 1 - specificity["value"]
    y = sensitivity["value"]
    label = f"at the threshold: sensitivity {y:.2f}, specificity {1 - x:.2f}"
    ax.plot(x, y, marker="o", color=color, markeredgecolor="black", linestyle="", label=label)
