"""How a training run went."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.pl import _colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_CURVES = {"phase", "epoch", "step", "split", "score", "learning_rate", "spots_per_second"}
CHANCE = "chance"
ONE_OF_NINE = "localized"  # a share whose chance is known without being logged


def training(run_dir: str | Path) -> "Figure":
    """Draw the metrics of a training run: a panel per quantity, training as lines, validation as dots.

    Parameters
    ----------
    run_dir
        The `output_dir` of :func:`stp.train.pretrain` or :func:`stp.train.align`.

    Returns
    -------
    The figure; phases follow each other, divided by dashed lines.

    Raises
    ------
    FileNotFoundError
        The folder has no metrics.jsonl.
    ValueError
        It has no line yet.

    Examples
    --------
    >>> figure = stp.pl.training("demo/stamp")
    """
    import matplotlib.pyplot as plt

    lines, ends = _read(Path(run_dir))
    found = {name for line in lines for name in line if not name.startswith(CHANCE)} - NOT_CURVES
    names = sorted(found, key=lambda name: (name != "loss", len(name), name))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    size = (3.6 * columns, 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        _draw(ax, lines, name)
        for end in ends[:-1]:
            ax.axvline(end, color="gray", linestyle="--", linewidth=0.8)
    return figure


def _draw(ax: "Axes", lines: list[dict], name: str) -> None:
    """Draw one quantity of both splits, and chance where it was logged or is known."""
    curves: dict[str, tuple[str, str, dict[str, Any]]] = {
        "train": ("train", name, {"color": _colors.TEN[0]}),
        "validation": (
            "validation",
            name,
            {"color": _colors.TEN[1], "marker": "o", "markersize": 4},
        ),
        "chance": (
            "validation",
            CHANCE + name.rpartition("recall")[2],
            {"linestyle": ":", "color": "gray"},
        ),
    }
    for label, (split, column, style) in curves.items():
        points = [
            (line["step"], line[column])
            for line in lines
            if line["split"] == split and column in line
        ]
        if points and (label != "chance" or column != name):
            ax.plot(*zip(*points, strict=True), label=label, **style)
    if name == ONE_OF_NINE:
        ax.axhline(1 / 9, label="chance", **curves["chance"][2])
    ax.set(title=name, xlabel="step")
    ax.legend(frameon=False)


def _read(run_dir: Path) -> tuple[list[dict], list[int]]:
    """Read metrics with steps counted on through all phases; return them and the last step of each phase."""
    file = run_dir / "metrics.jsonl"
    if not file.is_file():
        raise FileNotFoundError(
            f"{run_dir} has no metrics.jsonl; give the output_dir of stp.train.pretrain or align"
        )
    # A run that is under way may stand within its last line.
    lines = [
        json.loads(line)
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    if not lines:
        raise ValueError(f"{file} has no line yet; wait for the first step")
    ends, before = [], 0
    for phase in sorted({line["phase"] for line in lines}):
        of_phase = [line for line in lines if line["phase"] == phase]
        for line in of_phase:
            line["step"] += before
        before = max(line["step"] for line in of_phase)
        ends.append(before)
    return lines, ends
