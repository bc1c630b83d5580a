"""Values of spots, drawn on the tissue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stp.images.slides import SlideQuery, only_slide
from stp.pl import _colors
from stp.pl._tissue import Tissue
from stp.tables.table import as_list, get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PALE = 0.5  # of the tissue under the spots


def spots(
    sdata: "SpatialData",
    color: str | Sequence[str],
    *,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    size: float | None = None,
) -> "Figure":
    """Color spots by columns of `obs` on the tissue they lie on, beside that tissue.

    Parameters
    ----------
    sdata
        SpatialData with one slide.
    color
        One or several columns of `obs`, categories, booleans or numbers: a panel each. Categories have the colors of
        `uns["{column}_colors"]`; where there are none, ours are written there, as scanpy does, for later plots.
    image_key, um_per_px
        Image and its scale; resolved as in :func:`stp.tl.embed_images`.
    table_key
        Table of the SpatialData.
    size
        Of spots, relative to their distance.

    Returns
    -------
    The figure: the tissue alone, then spots on the tissue, paled; spots without a value are left out.

    Examples
    --------
    >>> figure = stp.pl.spots(sdata, ["domain", "activity"])
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    columns = as_list(color)
    values = [require(table, "obs", name, "what makes it").array for name in columns]
    tissue = Tissue.on(only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px)))
    figure, axes = plt.subplots(
        1,
        1 + len(columns),
        figsize=(4.6 * (1 + len(columns)), 4.2),
        layout="constrained",
        squeeze=False,
    )
    tissue.draw_picture(axes[0, 0], title="H&E")
    for ax, name, column in zip(axes[0, 1:], columns, values, strict=True):
        tissue.draw(ax, column, size, _colors_of(table, name), title=name, img_alpha=PALE)
    return figure


def _colors_of(table: "AnnData", name: str) -> list[str] | None:
    """Return the colors of a column's categories, given by the user or scanpy; others are noted for their plots."""
    if not hasattr(values := table.obs[name], "cat"):
        return None
    key, n = f"{name}_colors", len(values.cat.categories)
    if len(table.uns.get(key, ())) < n:
        table.uns[key] = [str(color) for color in _colors.of_categories(n)]
    return [str(color) for color in table.uns[key]]
