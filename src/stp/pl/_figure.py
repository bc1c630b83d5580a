"""Titles of figures, and how figures are shown, saved and returned."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Backends of matplotlib that only write files.
FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
SAVE_DPI = 200  # if matplotlib's savefig.dpi is not set
CHARACTER_WIDTH = 0.62  # of a letter, as a share of its font size
POINTS_PER_INCH = 72


def figure_of(ax: "Axes") -> "Figure":
    """Return the figure in which axes lie, also if they lie in a subfigure."""
    figure = ax.figure
    while figure is not figure.figure:
        figure = figure.figure
    return figure  # type: ignore[return-value]


def axes_or_new(ax: "Axes | None", figsize: tuple[float, float]) -> "Axes":
    """Return the axes of the user, or else the axes of a new figure of this size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="compressed")[1] if ax is None else ax


def set_titles(axes: Sequence["Axes"], title: str | Sequence[str] | None) -> None:
    """Replace the titles of panels; one title for several panels is put above them.

    Raises
    ------
    ValueError
        A list has another number of titles than there are panels.
    """
    if title is None:
        return
    if isinstance(title, str) and len(axes) > 1:
        figure_of(axes[0]).suptitle(title)
        return
    titles = [title] if isinstance(title, str) else list(title)
    if len(titles) != len(axes):
        raise ValueError(
            f"title has {len(titles)} titles for {len(axes)} panels; pass one for each panel, or "
            "a single text"
        )
    for ax, text in zip(axes, titles, strict=True):
        ax.title.set_text(text)  # in the size of the title before


def wrap(text: str, inches: float, font_size: float) -> str:
    """Break a text into lines that fit into a panel of this width, also after underscores."""
    n_characters = int(inches * POINTS_PER_INCH / (CHARACTER_WIDTH * font_size))
    lines = textwrap.wrap(text.replace("_", "_ "), max(n_characters, 1))
    return "\n".join(line.replace("_ ", "_") for line in lines)


def finish(
    figure: "Figure",
    *,
    ax: "Axes | None" = None,
    show: bool | None,
    save: str | Path | None,
    return_fig: bool,
) -> "Figure | None":
    """Save and show a figure as the user asks, and return it unless it is shown.

    Jupyter shows each open figure at the end of a cell, and the figure that a cell returns.
    A figure that is returned there is therefore closed, so that it appears only once.

    Parameters
    ----------
    figure
        The figure.
    ax
        Axes of the user, if the figure is the user's. It is then neither closed nor returned
        unless `return_fig` is true.
    show
        Whether to show it; by default `is_shown_by_default` decides.
    save
        Path of a file to save it in.
    return_fig
        Whether to return it instead of showing it.
    """
    import matplotlib.pyplot as plt

    if save is not None:
        _save(figure, save)
    if show is None:
        show = ax is None and not return_fig and is_shown_by_default()
    if show:
        plt.show()
    elif ax is None and _is_inline():
        plt.close(figure)
    is_returned = return_fig or not (show or ax is not None)
    return figure if is_returned else None


def is_shown_by_default() -> bool:
    """Return whether figures can be seen, and scanpy's setting `autoshow` is not off."""
    import matplotlib as mpl

    scanpy = sys.modules.get("scanpy")  # its settings can only differ if the user imported it
    is_wanted = scanpy is None or bool(scanpy.settings.autoshow)
    return is_wanted and mpl.get_backend().lower() not in FILE_BACKENDS


def _is_inline() -> bool:
    """Return whether Jupyter shows open figures at the end of a cell."""
    import matplotlib as mpl

    return "inline" in mpl.get_backend().lower()


def _save(figure: "Figure", path: str | Path) -> None:
    import matplotlib as mpl

    if not isinstance(path, str | Path):
        raise TypeError(f"save is {path!r}; pass the path of a file, such as 'figure.png'")
    dpi = mpl.rcParams["savefig.dpi"]
    figure.savefig(path, dpi=SAVE_DPI if dpi == "figure" else dpi, bbox_inches="tight")
