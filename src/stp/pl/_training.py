"""Curves of a training run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.pl import _colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_CURVES = {"phase", "epoch", "step", "split", "score", "learning_rate", "spots_per_second"}
CHANCE = "chance"
LOCALIZED = "localized"  # share of patches found in their region; its chance is not logged
N_CELLS = 9  # cells of a region

Line = dict[str, Any]  # one line of metrics.jsonl


def training(run_dir: str | Path) -> "Figure":
    """Draw the metrics of a training run.

    Parameters
    ----------
    run_dir
        The `output_dir` of :func:`stp.train.pretrain` or :func:`stp.train.align`.

    Returns
    -------
    A figure with a panel for each metric: training as a line, validation as dots. Dashed lines
    separate the phases.

    Raises
    ------
    FileNotFoundError
        The folder has no metrics.jsonl.
    ValueError
        The file has no line yet.

    Examples
    --------
    >>> figure = stp.pl.training("demo/stamp")
    """
    import matplotlib.pyplot as plt

    lines = _read_metrics(Path(run_dir))
    phase_ends = _number_steps_through(lines)
    names = _metric_names(lines)
    n_columns = min(4, len(names))
    n_rows = -(-len(names) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(3.6 * n_columns, 2.8 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        _draw_metric(ax, lines, name)
        for step in phase_ends[:-1]:
            ax.axvline(step, color="gray", linestyle="--", linewidth=0.8)
    return figure


def _metric_names(lines: list[Line]) -> list[str]:
    """Return the metrics to draw: the loss first, then short names before long ones."""
    names = {name for line in lines for name in line if not name.startswith(CHANCE)} - NOT_CURVES
    return sorted(names, key=lambda name: (name != "loss", len(name), name))


def _draw_metric(ax: "Axes", lines: list[Line], name: str) -> None:
    """Draw one metric of both splits, and chance if it is known."""
    steps, values = _curve(lines, "train", name)
    if steps:
        ax.plot(steps, values, label="train", color=_colors.TEN[0])
    steps, values = _curve(lines, "validation", name)
    if steps:
        color = _colors.TEN[1]
        ax.plot(steps, values, label="validation", color=color, marker="o", markersize=4)
    if "recall" in name:
        k = name.rpartition("recall")[2]  # such as "@5"
        steps, values = _curve(lines, "validation", CHANCE + k)
        if steps:
            ax.plot(steps, values, label="chance", linestyle=":", color="gray")
    if name == LOCALIZED:
        ax.axhline(1 / N_CELLS, label="chance", linestyle=":", color="gray")
    ax.set(title=name, xlabel="step")
    ax.legend(frameon=False)


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


def _number_steps_through(lines: list[Line]) -> list[int]:
    """Count the steps of each phase on from the phase before; return the last step of each.

    A run that went on with more processes has larger steps, so that their number is lower again.
    """
    phase_ends: list[int] = []
    last = 0
    for phase in sorted({line["phase"] for line in lines}):
        offset = last
        for line in (line for line in lines if line["phase"] == phase):
            offset = max(offset, last - line["step"])
            line["step"] += offset
            last = line["step"]
        phase_ends.append(last)
    return phase_ends
