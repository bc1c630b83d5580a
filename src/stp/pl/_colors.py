"""Colors of curves and categories, apart for people with any color vision up to ten."""

from collections.abc import Sequence

# Petroff, Accessible color sequences for data visualization, 2021: arXiv 2107.02270.
TEN = "#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split()
RED = TEN[2]


def of_categories(n: int) -> Sequence[str]:
    """Return a color for each of n categories; beyond ten they are scanpy's, which no color vision tells all apart."""
    from scanpy.plotting import palettes

    larger = (palettes.default_20, palettes.default_28, palettes.default_102)
    fitting = next((colors for colors in (TEN, *larger) if n <= len(colors)), ["#808080"] * n)
    return fitting[:n]
