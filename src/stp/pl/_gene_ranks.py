"""The curve of correlations by rank, with the names of the best and worst genes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.pl import _colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_ranks(
    ax: "Axes",
    genes: Sequence[str],
    correlations: np.ndarray,
    n_named: int,
    n_not_measured: int,
) -> None:
    """Draw the correlation of each gene by rank, with the names of the best and worst genes."""
    from matplotlib.ticker import MaxNLocator

    order = np.argsort(-correlations, kind="stable")
    ax.plot(np.arange(1, len(order) + 1), correlations[order], color="black")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.axhline(0, color="gray", linewidth=0.8)
    median = np.median(correlations)
    ax.axhline(
        median, color=_colors.RED, linestyle="--", linewidth=0.8, label=f"median {median:.2f}"
    )
    ax.legend(frameon=False)
    title = f"{len(order)} genes"
    if n_not_measured:
        title += f", {n_not_measured} not measured"
    ax.set(xlabel="gene, by rank", ylabel="correlation over spots", title=title)
    lines = [f"{genes[i]} {correlations[i]:.2f}" for i in order]
    best = "\n".join(lines[:n_named])
    worst = "\n".join(lines[max(n_named, len(lines) - n_named) :])
    # The curve falls from left to right, so these two corners are empty.
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
    place = ax.transAxes
    ax.text(0.97, 0.86, best, ha="right", va="top", fontsize=8, transform=place, bbox=box)
    ax.text(0.03, 0.05, worst, ha="left", va="bottom", fontsize=8, transform=place, bbox=box)
