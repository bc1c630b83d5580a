"""What figures of slide scores share: the targets they draw, panels, and texts of scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview
from stp.pl import _colors
from stp.pl._figure import POINTS_PER_INCH, axes_or_new, figure_of
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

MAKER = "stp.tl.score_slides(cohort)"
PANEL_INCHES = 4.2  # width of a panel, and about the height of a square one with its names
LINE_INCHES = 0.17  # height of a line of a legend
LEGEND_POINTS = 36  # from the axis to a legend below it
BAND_ALPHA = 0.18
SMALL = 8  # font size of legends


class TargetCurves:
    """The curves of one target and its scores."""

    def __init__(self, name: str, table: "pd.DataFrame", scores: "pd.DataFrame", level: float):
        self.name = name
        self.table = table
        self.scores = scores
        self.level = level

    def classes(self) -> list[str]:
        """Return the classes that have a curve."""
        return [str(name) for name in dict.fromkeys(self.table["class"])]

    def curve(self, class_name: str) -> "pd.DataFrame":
        """Return the curve of a class."""
        return self.table[self.table["class"].astype(str) == class_name]

    def row(self, score: str, class_name: str = "", decision: str = "") -> "pd.Series | None":
        """Return a row of the scores, or None if there is none."""
        is_row = (
            (self.scores["score"] == score)
            & (self.scores["class"] == class_name)
            & (self.scores["decision"] == decision)
        )
        return self.scores[is_row].iloc[0] if is_row.any() else None

    def text(self, score: str, class_name: str = "") -> str:
        """Return the value of a score with its interval: "0.81 (0.72 to 0.89)"."""
        row = self.row(score, class_name)
        if row is None or not np.isfinite(row["value"]):
            return "not defined"
        text = f"{row['value']:.2f}"
        if np.isfinite(row["low"]):
            text += f" ({row['low']:.2f} to {row['high']:.2f})"
        return text

    def n_text(self, class_name: str) -> str:
        """Return the numbers of patients: "60 patients, 24 mutated"."""
        row = self.scores[self.scores["class"] == class_name].iloc[0]
        return f"{count(row['n_patients'], 'patient')}, {int(row['n_positives']):,} {class_name}"

    @property
    def interval_name(self) -> str:
        """Name of the intervals: "95 % interval"."""
        return f"{100 * self.level:g} % interval"


def read_result(cohort: "AnnData", key: str) -> Mapping[str, Any]:
    """Return the result of `stp.tl.score_slides`."""
    result = require(get_table(cohort), "uns", key, MAKER)
    if "curves" not in result:
        raise ValueError(f"uns[{key!r}] has no scores of slides; run {MAKER}, or pass its key=")
    return result


def read_curves(cohort: "AnnData", key: str, curve: str, target: str | None) -> list[TargetCurves]:
    """Return the targets that have a curve.

    Raises
    ------
    KeyError
        There are no scores, or there is no such target.
    ValueError
        No target, or not this one, has the curve.
    """
    result = read_result(cohort, key)
    curves = result["curves"]
    choose_targets(curves, target, key)
    names = [name for name in curves if curve in curves[name] and target in (None, name)]
    if not names:
        subject = "no target has" if target is None else f"target {target!r} does not have"
        raise ValueError(f"{subject} the curve {curve!r} in uns[{key!r}]; {_reason(curve)}")
    scores = result["scores"]
    level = float(result["params"]["level"])
    return [
        TargetCurves(name, curves[name][curve], scores[scores["target"] == name], level)
        for name in names
    ]


def _reason(curve: str) -> str:
    if curve == "kaplan_meier":
        return "it needs a target of survival, and models that record the median risk of training"
    return "it needs a target of classes"


def choose_targets(entries: Mapping[str, Any], target: str | None, key: str) -> list[str]:
    """Return the names of all targets, or of one, or raise a KeyError that lists them."""
    names = [str(name) for name in entries]
    if target is None:
        return names
    if target not in names:
        raise KeyError(f"uns[{key!r}] has no target {target!r}; it has {preview(names, 10)}")
    return [target]


def target_panels(
    n_targets: int, n_lines: int, ax: "Axes | None", width: float = PANEL_INCHES
) -> "list[Axes]":
    """Return the user's axes, or axes of a new figure with a panel per target.

    Parameters
    ----------
    n_targets
        Number of panels.
    n_lines
        Largest number of lines of a legend, for which the figure has room.
    ax
        Axes of the user.
    width
        Width of a panel in inches.

    Raises
    ------
    ValueError
        Several targets do not fit the user's axes.
    """
    import matplotlib.pyplot as plt

    inches = (width, PANEL_INCHES + LINE_INCHES * n_lines)
    if n_targets == 1:
        return [axes_or_new(ax, inches)]
    if ax is not None:
        raise ValueError(f"ax= has room for one target and there are {n_targets}; pass target=")
    n_columns = min(n_targets, 3)
    n_rows = -(-n_targets // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(inches[0] * n_columns, inches[1] * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for panel in axes.flat[n_targets:]:
        panel.set_visible(False)
    return list(axes.flat[:n_targets])


def class_colors(palette: _colors.Palette | None, classes: Sequence[str]) -> dict[str, str]:
    """Return the color of each class."""
    colors = (
        _colors.of_categories(len(classes))
        if palette is None
        else _colors.of_palette(palette, classes)
    )
    return dict(zip(classes, colors, strict=True))


def draw_curve(
    ax: "Axes", curve: "pd.DataFrame", names: tuple[str, str], color: str, label: str
) -> None:
    """Draw a curve, and its band if it has one."""
    x = curve[names[0]].to_numpy()
    ax.plot(x, curve[names[1]], color=color, label=label)
    low = curve["low"].to_numpy(dtype=float)
    if np.isfinite(low).any():
        high = curve["high"].to_numpy(dtype=float)
        ax.fill_between(x, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)


def legend_below(ax: "Axes", title: str, *, points: float = LEGEND_POINTS) -> None:
    """Put the legend under the panel, where it covers no curve, this far below the axis."""
    from matplotlib.transforms import ScaledTranslation

    figure = figure_of(ax)
    down = ScaledTranslation(0, -points / POINTS_PER_INCH, figure.dpi_scale_trans)
    ax.legend(
        title=title,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + down,
        borderaxespad=0,
        frameon=False,
        fontsize=SMALL,
        title_fontsize=SMALL,
        alignment="left",
    )


def square(ax: "Axes") -> None:
    """Let both axes run from 0 to 1 with equal lengths."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.spines[["top", "right"]].set_visible(False)
