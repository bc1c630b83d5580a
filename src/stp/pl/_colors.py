"""Colors of curves and categories."""

from collections.abc import Sequence

# Petroff, Accessible color sequences for data visualization, 2021: arXiv 2107.02270.
TEN = "#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split()
RED = TEN[2]


def of_categories(n: int) -> Sequence[str]:
    """Return a color for each of n categories.

    Up to ten colors can be told apart with any color vision. More colors are those of scanpy,
    which cannot.
    """
    from scanpy.plotting import palettes

    for colors in (TEN, palettes.default_20, palettes.default_28, palettes.default_102):
        if n <= len(colors):
            return colors[:n]
    return ["#808080"] * n
