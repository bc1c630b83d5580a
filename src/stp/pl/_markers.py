"""Markers of spots, and the same markers in legends."""

from typing import Any

import numpy as np

CROSS = OUTLINE = "#00e5ff"  # cyan, which neither tissue nor magma has


def marker_area(n_spots: int) -> float:
    """Return a marker area in square points at which spots neither overlap nor vanish."""
    return float(np.clip(12_000 / max(n_spots, 1), 2, 40))


def legend_marker(color: str) -> Any:
    """Return the marker of a category for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker="o", color=color)


def legend_cross() -> Any:
    """Return the mark of a spot for a legend."""
    from matplotlib.lines import Line2D

    mark = Line2D([], [], linestyle="", marker="x", color=CROSS)
    mark.set_path_effects([cross_halo()])
    return mark


def cross_halo() -> Any:
    """Return a black border of crosses, for light spots."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2.6, foreground="black")
