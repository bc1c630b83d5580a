"""Colors of curves, categories and missing values."""

from collections.abc import Mapping, Sequence

import numpy as np

# Petroff, Accessible color sequences for data visualization, 2021: arXiv 2107.02270. Its two grays
# are replaced by a dark violet and a dark red, because gray stands for missing values.
TEN = "#3f90da #ffa90e #bd1f01 #832db6 #a96b59 #e76300 #b9ac70 #92dadd #3c2d5a #781e2d".split()
BLUE = TEN[0]
RED = TEN[2]
MISSING = "#b4b4b4"
MIN_CHROMA = 0.15  # smallest difference of red, green and blue that does not look gray

Palette = str | Sequence[str] | Mapping[str, str]


def of_categories(n: int) -> list[str]:
    """Return a color for each of n categories; none is gray.

    Up to ten colors can be distinguished with any color vision. More colors are those of scanpy, or
    else a rainbow, which cannot.
    """
    from scanpy.plotting import palettes

    for palette in (TEN, palettes.default_20, palettes.default_28, palettes.default_102):
        colors = [color for color in palette if not is_gray(color)]
        if n <= len(colors):
            return colors[:n]
    return _sample("gist_rainbow", n)


def is_gray(color: str) -> bool:
    """Return whether a color looks gray, white or black."""
    from matplotlib.colors import to_rgb

    return bool(np.ptp(to_rgb(color)) < MIN_CHROMA)


def of_palette(
    palette: Palette, categories: Sequence[str], *, can_repeat: bool = False
) -> list[str]:
    """Return the color that the user's palette has for each category.

    Raises
    ------
    ValueError
        The palette has no color for a category, or no such color map exists.
    """
    from matplotlib.colors import to_hex

    if isinstance(palette, Mapping):
        missing = [name for name in categories if name not in palette]
        if missing:
            raise ValueError(f"palette has no color for {missing}; it has {list(palette)}")
        return [to_hex(palette[name]) for name in categories]
    n = len(categories)
    colors = _of_map(palette, n) if isinstance(palette, str) else [to_hex(c) for c in palette]
    if len(colors) < n and not can_repeat:
        raise ValueError(
            f"palette has {len(colors)} colors for the {n} categories {list(categories)}; "
            "pass a color for each"
        )
    return [colors[i % len(colors)] for i in range(n)]


def _of_map(name: str, n: int) -> list[str]:
    """Return the colors of a color sequence of matplotlib, or n colors of a color map."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if name in mpl.color_sequences:
        return [to_hex(color) for color in mpl.color_sequences[name]]
    if name not in mpl.colormaps:
        raise ValueError(f"palette {name!r} is no color map of matplotlib; 'Set2' is one")
    return _sample(name, n)


def _sample(name: str, n: int) -> list[str]:
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in mpl.colormaps[name](np.linspace(0, 1, n))]
