"""Curves of a training run."""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stp.pl import _colors
from stp.pl._figure import finish, set_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_CURVES = {"phase", "epoch", "step", "split", "score", "learning_rate", "spots_per_second"}
SPLITS = ("train", "validation")
CHANCE = "chance"
LOCALIZED = "localized"  # share of patches found in their region; its chance is not logged
N_CELLS = 9  # cells of a region

Line = dict[str, Any]  # one line of metrics.jsonl


def training(
    run_dir: str | Path,
    *,
    palette: _colors.Palette | None = None,
    title: str | Sequence[str] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the metrics of a training run.

    Parameters
    ----------
    run_dir
        The `output_dir` of :func:`stp.train.pretrain` or :func:`stp.train.align`.
    palette
        Colors of categories: a list in their order, a mapping from each category to its color, or
        the name of a color map of matplotlib.
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with a panel for each loss and a panel for all recalls: training as a line, validation
    as dots. If there are several phases, each has a column of panels. The categories of `palette`
    are "train" and "validation". Nothing is returned if the figure is shown.

    Raises
    ------
    FileNotFoundError
        The folder has no metrics.jsonl.
    ValueError
        The file has no line yet.

    Examples
    --------
    >>> stp.pl.training("demo/stamp")
    """
    lines = _read_metrics(Path(run_dir))
    _number_steps_on(lines)
    colors = _colors.TEN[:2] if palette is None else _colors.of_palette(palette, SPLITS)
    figure, panels = _new_panels(_list_metrics(lines), sorted({line["phase"] for line in lines}))
    drawn = []
    for panel in panels:
        _draw_panel(panel, lines, dict(zip(SPLITS, colors, strict=True)))
        if panel.ax.lines:
            drawn.append(panel.ax)
        else:
            panel.ax.set_visible(False)
    set_titles(drawn, title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


class Panel(NamedTuple):
    """Axes for metrics of a phase."""

    ax: "Axes"
    name: str
    metrics: list[str]
    phase: int
    title: str


def _list_metrics(lines: list[Line]) -> dict[str, list[str]]:
    """Return the panels of a phase: the loss, then short names before long ones, then recalls.

    Each metric has a panel, except the recalls of a target, which share one.
    """
    names = {name for line in lines for name in line if not name.startswith(CHANCE)} - NOT_CURVES
    panels: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: ("@" in name, name != "loss", len(name), name)):
        panels.setdefault(name.partition("@")[0], []).append(name)
    return panels


def _new_panels(metrics: dict[str, list[str]], phases: list[int]) -> tuple["Figure", list[Panel]]:
    """Make a figure with a row for each metric and a column for each phase.

    The panels of a single phase fill rows of four.
    """
    import matplotlib.pyplot as plt

    n_columns = len(phases) if len(phases) > 1 else min(4, len(metrics))
    n_rows = len(metrics) if len(phases) > 1 else -(-len(metrics) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(3.6 * n_columns, 2.6 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    pairs = [(name, phase) for name in metrics for phase in phases]
    for ax in axes.flat[len(pairs) :]:
        ax.set_visible(False)
    panels = []
    for ax, (name, phase) in zip(axes.flat, pairs, strict=False):
        text = name.replace("_", " ")
        if len(phases) > 1:
            text += f", phase {phases.index(phase) + 1} of {len(phases)}"
        panels.append(Panel(ax, name, metrics[name], phase, text))
    return figure, panels


def _draw_panel(panel: Panel, lines: list[Line], colors: dict[str, str]) -> None:
    """Draw the metrics of a panel for both splits, and chance if it is known."""
    ax = panel.ax
    lines = [line for line in lines if line["phase"] == panel.phase]
    is_shared = len(panel.metrics) > 1
    for metric, shared_color in zip(panel.metrics, cycle(_colors.TEN), strict=False):
        chance = CHANCE + metric[metric.find("@") :] if "@" in metric else ""
        for split, marker in zip(SPLITS, ("", "o"), strict=True):
            steps, values = _curve(lines, split, metric)
            label = metric.replace("_", " ") if is_shared else split
            color = shared_color if is_shared else colors[split]
            if steps:
                ax.plot(steps, values, label=label, color=color, marker=marker, markersize=4)
        steps, values = _curve(lines, "validation", chance)
        if steps:
            color = shared_color if is_shared else "black"
            label = "" if is_shared else CHANCE
            ax.plot(steps, values, label=label, linestyle=":", color=color)
            if is_shared and metric == panel.metrics[-1]:
                ax.plot([], [], label=CHANCE, linestyle=":", color="black")
    if panel.name == LOCALIZED and ax.lines:
        ax.axhline(1 / N_CELLS, label=CHANCE, linestyle=":", color="black")
    ax.set(title=panel.title, xlabel="step")
    if ax.lines:
        # Lines run below the legend, so its box pales them.
        ax.legend(facecolor="white", edgecolor="none", framealpha=0.8, fontsize="small")


def _curve(lines: list[Line], split: str, name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a metric was logged, and its values."""
    logged = [line for line in lines if line["split"] == split and name in line]
    return [line["step"] for line in logged], [line[name] for line in logged]


def _read_metrics(run_dir: Path) -> list[Line]:
    file = run_dir / "metrics.jsonl"
    if not file.is_file():
        raise FileNotFoundError(
            f"{run_dir} has no metrics.jsonl; give the output_dir of stp.train.pretrain or align"
        )
    # A run that is still training may be writing its last line.
    lines = [
        json.loads(line)
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True)
        if line.endswith("\n")
    ]
    if not lines:
        raise ValueError(f"{file} has no line yet; wait for the first step")
    return lines


def _number_steps_on(lines: list[Line]) -> None:
    """Let the steps of each phase never go back.

    A run that went on with more processes has larger steps, so that their number is lower again.
    """
    for phase in {line["phase"] for line in lines}:
        last = 0
        offset = 0
        for line in (line for line in lines if line["phase"] == phase):
            offset = max(offset, last - line["step"])
            line["step"] += offset
            last = line["step"]
