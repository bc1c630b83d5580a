"""Survival of patients of low and high risk."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import count
from stp.pl import _colors
from stp.pl._figure import figure_of, finish, set_titles
from stp.pl._slide_scores import (
    BAND_ALPHA,
    LEGEND_POINTS,
    SMALL,
    TargetCurves,
    legend_below,
    read_curves,
    target_panels,
)
from stp.tables import keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SURVIVAL_INCHES = 5.2  # width of a panel
N_LINES = 4  # of the legend
GROUPS = ("low", "high")  # of risk
KAPLAN_COLORS = (_colors.BLUE, _colors.RED)
FIRST_LINE = -34  # points under the axis, below its name
LINE_POINTS = 12


def kaplan_meier(
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
    """Draw the survival of patients of low and high risk, with the numbers at risk.

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
    A figure with a panel per target. Risk is high above the median of the training. Bands are
    pointwise intervals, and small vertical lines are patients whose observation ended without an
    event. Numbers at risk stand under the axis. The categories of `palette` are "low" and "high".
    Nothing is returned if the figure is shown or your own.

    Raises
    ------
    KeyError
        There are no scores, or there is no such target.
    ValueError
        No target is of survival, or the models record no median risk of the training.

    Examples
    --------
    >>> target = stp.train.Survival("days", "event", n_intervals=2)
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> stp.tl.assign_folds(cohort, "event", n_folds=2)
    >>> models = stp.train.cross_validate_slides(
    ...     cohort, "runs/os", targets=target, config=config, validation_share=0
    ... )
    >>> stp.tl.predict_slides(cohort, "runs/os")
    >>> stp.tl.score_slides(cohort)
    >>> stp.pl.kaplan_meier(cohort)
    """
    targets = read_curves(cohort, key, "kaplan_meier", target)
    colors = KAPLAN_COLORS if palette is None else _colors.of_palette(palette, GROUPS)
    panels = target_panels(len(targets), N_LINES, ax, SURVIVAL_INCHES)
    for panel, one in zip(panels, targets, strict=True):
        _draw_survival(panel, one, dict(zip(GROUPS, colors, strict=True)))
    set_titles(panels, title)
    return finish(figure_of(panels[0]), ax=ax, show=show, save=save, return_fig=return_fig)


def _draw_survival(ax: "Axes", target: TargetCurves, colors: dict[str, str]) -> None:
    """Draw the curves of both groups, and the numbers at risk."""
    curves = {group: target.table[target.table["risk"].astype(str) == group] for group in GROUPS}
    latest = float(target.table["time"].max())
    for group, curve in curves.items():
        if len(curve):
            _draw_group(ax, curve, colors[group], group)
    ax.set(
        xlim=(0, latest),
        ylim=(0, 1.03),
        xlabel=f"time ({target.name})",
        ylabel="share without event",
        title=target.name,
    )
    ax.spines[["top", "right"]].set_visible(False)
    legend_below(ax, _legend_title(target), points=LEGEND_POINTS + (1 + len(GROUPS)) * LINE_POINTS)
    _write_numbers_at_risk(ax, curves, colors, latest)


def _draw_group(ax: "Axes", curve: "pd.DataFrame", color: str, group: str) -> None:
    """Draw the steps of a group, their band, and the patients without an event."""
    times = curve["time"].to_numpy(dtype=float)
    survival = curve["survival"].to_numpy(dtype=float)
    n_patients = int(curve["n_at_risk"].iloc[0])
    label = (
        f"{group} risk: {count(n_patients, 'patient')}, {count(curve['n_events'].sum(), 'event')}"
    )
    ax.step(times, survival, where="post", color=color, label=label)
    low = curve["low"].to_numpy(dtype=float)
    high = curve["high"].to_numpy(dtype=float)
    ax.fill_between(times, low, high, step="post", color=color, alpha=BAND_ALPHA, linewidth=0)
    is_censored = curve["n_censored"].to_numpy() > 0
    ax.plot(times[is_censored], survival[is_censored], color=color, marker="|", linestyle="")


def _legend_title(target: TargetCurves) -> str:
    texts = []
    ratio = target.row("hazard_ratio")
    if ratio is not None and np.isfinite(ratio["value"]):
        text = f"hazard ratio {ratio['value']:.2f}"
        if np.isfinite(ratio["low"]):
            text += f" ({target.interval_name} {ratio['low']:.2f} to {ratio['high']:.2f})"
        texts.append(text)
    test = target.row("logrank_p")
    if test is not None and np.isfinite(test["value"]):
        p = test["value"]
        texts.append("log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}")
    return "\n".join(texts)


def _write_numbers_at_risk(
    ax: "Axes", curves: "dict[str, pd.DataFrame]", colors: dict[str, str], latest: float
) -> None:
    """Write for each tick how many patients of a group are still observed."""
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick <= latest]
    ax.set_xticks(ticks)
    _write(ax, "number at risk", 0, FIRST_LINE, color="black", is_left=True)
    for line, (group, curve) in enumerate(curves.items(), start=1):
        offset = FIRST_LINE - LINE_POINTS * line
        _write(ax, f"{group} risk", 0, offset, color=colors[group], is_left=True)
        times = curve["time"].to_numpy()
        at_risk = np.append(curve["n_at_risk"].to_numpy(), 0)
        for tick in ticks:
            number = int(at_risk[np.searchsorted(times, tick)])
            _write(ax, f"{number:,}", tick, offset, color="black")


def _write(
    ax: "Axes", text: str, x: float, offset: float, *, color: str, is_left: bool = False
) -> None:
    """Write a text this many points under the axis, at a time or left of the axis."""
    ax.annotate(
        text,
        (x, 0),
        (-18 if is_left else 0, offset),
        ha="right" if is_left else "center",
        va="top",
        fontsize=SMALL,
        fontweight="bold" if is_left else "normal",
        color=color,
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        annotation_clip=False,
    )
