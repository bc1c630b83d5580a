"""What the model sees: patches and the regions around them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl._tissue import picture_of
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

DRAWN_PX = 224
BAR_UM = {0: 50, 1: 100}  # scale bars of patches and regions


def patches(
    sdata: "SpatialData",
    *,
    spots: str | Sequence[str] | None = None,
    patch_um: float = 112.0,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
) -> "Figure":
    """Draw the tissue with some spots, their patches, and the 3 x 3 regions around them.

    Parameters
    ----------
    sdata
        SpatialData with one slide.
    spots
        Names of spots; by default six, spread from top to bottom.
    patch_um
        Side of a patch in um; a region is three times as wide.
    image_key, um_per_px
        Image and its scale; resolved as in :func:`stp.tl.embed_images`.
    table_key
        Table of the SpatialData.

    Returns
    -------
    The figure: tissue, patches above regions, the patch outlined where it lies in its region.

    Raises
    ------
    KeyError
        A named spot is not in the table.

    Examples
    --------
    >>> figure = stp.pl.patches(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    slide = only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    chosen = _choose(slide, table.obs_names[slide.rows], spots)
    n = len(chosen)
    figure = plt.figure(figsize=(4.6 + 1.9 * n, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, n + 1, width_ratios=[2.4, *[1] * n])
    _overview(figure.add_subplot(grid[:, 0]), slide, chosen, patch_um)
    for row, side in enumerate((patch_um, 3 * patch_um)):
        um_per_drawn = side / DRAWN_PX
        pictures = slide.pyramid.read(
            slide.centers[chosen], size=DRAWN_PX, um_per_px=um_per_drawn, allow_upsampling=True
        )
        for column, picture in enumerate(pictures):
            ax = figure.add_subplot(grid[row, column + 1])
            ax.imshow(picture, extent=(0, side, side, 0))
            scale_bar(ax, side, BAR_UM[row])
            name = table.obs_names[slide.rows[chosen[column]]]
            ax.set(xticks=[], yticks=[], title=str(name) if row == 0 else "")
            if row:
                ax.add_patch(
                    plt.Rectangle(
                        (patch_um, patch_um), patch_um, patch_um, fill=False, color="black"
                    )
                )
    return figure


def _choose(slide: Slide, names: Sequence[str], spots: str | Sequence[str] | None) -> np.ndarray:
    if spots is None:
        order = np.argsort(slide.centers[:, 1], kind="stable")
        return (
            order if len(order) <= 6 else order[np.linspace(0, len(order) - 1, 8).astype(int)[1:-1]]
        )
    index, spots = {name: i for i, name in enumerate(names)}, as_list(spots)
    if missing := [name for name in spots if name not in index]:
        raise KeyError(f"no spots {missing}; choose from the table's obs_names")
    return np.array([index[name] for name in spots])


def _overview(ax: "Axes", slide: Slide, chosen: np.ndarray, patch_um: float) -> None:
    import matplotlib.pyplot as plt

    height, width = slide.pyramid.levels[0].shape
    um = slide.pyramid.um_per_px
    ax.imshow(picture_of(slide)[0], extent=(0.0, width * um, height * um, 0.0))
    xy = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
    ax.scatter(xy[:, 0], xy[:, 1], s=4, facecolors="none", edgecolors="black", linewidths=0.4)
    for x, y in xy[chosen]:
        corner = (x - patch_um / 2, y - patch_um / 2)
        ax.add_patch(
            plt.Rectangle(corner, patch_um, patch_um, fill=False, color="gold", linewidth=2)
        )
    ax.set(xlabel="um", ylabel="um", title=f"{slide.image_key}, {len(xy)} spots")


def scale_bar(ax: "Axes", side: float, length: float) -> None:
    left, low = 0.06 * side, 0.94 * side
    ax.plot([left, left + length], [low, low], color="black", linewidth=3, solid_capstyle="butt")
    ax.text(left, low - 0.03 * side, f"{length} um", fontsize=8, va="bottom")
