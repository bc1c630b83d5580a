"""Values of spots on the tissue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stp.images.slides import SlideQuery, only_slide
from stp.pl import _colors
from stp.pl._tissue_image import Tissue
from stp.tables.table import as_list, get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

TISSUE_ALPHA = 0.5  # opacity of the tissue under the spots


def spots(
    sdata: "SpatialData",
    color: str | Sequence[str],
    *,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    size: float | None = None,
) -> "Figure":
    """Draw the tissue, and spots on it that are colored by columns of `obs`.

    Parameters
    ----------
    sdata
        SpatialData with one slide.
    color
        One or several columns of `obs` with categories, booleans or numbers. Each column is a
        panel. Categories have the colors of `uns["{column}_colors"]`. If there are none, default
        colors are stored there for later plots, as scanpy does.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.
    size
        Size of the spots, as a factor of their default size.

    Returns
    -------
    A figure with the tissue on the left, then a panel for each column with the spots on the paled
    tissue. Spots without a value are not drawn.

    Examples
    --------
    >>> figure = stp.pl.spots(sdata, ["domain", "activity"])
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    names = as_list(color)
    columns = [require(table, "obs", name, "what makes it").array for name in names]
    tissue = Tissue.from_slide(only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px)))
    n_panels = 1 + len(names)
    figure, axes = plt.subplots(
        1, n_panels, figsize=(4.6 * n_panels, 4.2), layout="constrained", squeeze=False
    )
    tissue.draw_image(axes[0, 0], "H&E")
    for ax, name, column in zip(axes[0, 1:], names, columns, strict=True):
        colors = _category_colors(table, name)
        tissue.draw(ax, column, name, size=size, colors=colors, image_alpha=TISSUE_ALPHA)
    return figure


def _category_colors(table: "AnnData", name: str) -> list[str] | None:
    """Return the colors of a column's categories; None if the column has no categories.

    Default colors are stored in `uns` if the table has no colors, or too few.
    """
    column = table.obs[name]
    if not hasattr(column, "cat"):
        return None
    key = f"{name}_colors"
    n_categories = len(column.cat.categories)
    if len(table.uns.get(key, ())) < n_categories:
        table.uns[key] = [str(color) for color in _colors.of_categories(n_categories)]
    return [str(color) for color in table.uns[key]]
