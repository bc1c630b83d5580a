"""Patches of spots and the regions around them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl._figure import finish, set_titles, wrap
from stp.pl._markers import OUTLINE
from stp.pl._slide_view import read_overview
from stp.pl._tissue_image import SCALE_BAR, TITLE_SIZE
from stp.tables.table import as_list, get_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

OVERVIEW_INCHES = 4.6
PATCH_PIXELS = 224  # side of a drawn patch or region
N_SPOTS = 6  # number of spots by default
OVERVIEW_AREA = 4.0  # of a spot on the tissue, in square points
PATCH_INCHES = 1.9  # width of a patch and the space around it
NAME_INCHES = 1.6
OVERVIEW_TITLE_INCHES = 3.3
NAME_SIZE = 8  # points, for names of spots, which are long
PATCH_BAR_UM = 50
REGION_BAR_UM = 100


def patches(
    sdata: "SpatialData",
    *,
    spots: str | Sequence[str] | None = None,
    patch_um: float = 112.0,
    image_key: str | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    size: float = 1.0,
    title: str | Sequence[str] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the tissue, the patches of some spots, and the 3 x 3 regions around these patches.

    Parameters
    ----------
    sdata
        SpatialData with one slide.
    spots
        Names of spots; by default six spots from top to bottom.
    patch_um
        Side of a patch in µm.
    image_key
        Name of the image; by default it is resolved from the table.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.
    size
        Size of the spots, as a factor of their default size.
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with the tissue on the left and patches above their regions. Each region shows the
    outline of its patch. The panels with titles are the tissue and the patches. Nothing is returned
    if the figure is shown.

    Raises
    ------
    KeyError
        A named spot is not in the table.

    Examples
    --------
    >>> stp.pl.patches(sdata)
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    slide = only_slide(sdata, table, SlideQuery(image_key, um_per_px=um_per_px))
    names = table.obs_names[slide.rows]
    index = _index_of_spots(slide, names, spots)
    figure = plt.figure(
        figsize=(OVERVIEW_INCHES + PATCH_INCHES * len(index), 4.2), layout="constrained"
    )
    grid = figure.add_gridspec(2, len(index) + 1, width_ratios=[2.4, *[1] * len(index)])
    overview = figure.add_subplot(grid[:, 0])
    _draw_overview(overview, slide, index, patch_um, size)
    titled = [overview]
    for column, picture in enumerate(_read_squares(slide, index, patch_um), start=1):
        ax = figure.add_subplot(grid[0, column])
        draw_patch(ax, picture, patch_um, PATCH_BAR_UM)
        name = str(names[index[column - 1]])
        ax.set_title(wrap(name, NAME_INCHES, NAME_SIZE), fontsize=NAME_SIZE)
        titled.append(ax)
    for column, picture in enumerate(_read_squares(slide, index, 3 * patch_um), start=1):
        ax = figure.add_subplot(grid[1, column])
        draw_patch(ax, picture, 3 * patch_um, REGION_BAR_UM)
        corner = (patch_um, patch_um)
        ax.add_patch(plt.Rectangle(corner, patch_um, patch_um, fill=False, color=OUTLINE))
    set_titles(titled, title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _index_of_spots(
    slide: Slide, names: Sequence[str], spots: str | Sequence[str] | None
) -> np.ndarray:
    """Return the positions of the named spots in the slide, or of some spots from top to bottom."""
    if spots is None:
        order = np.argsort(slide.centers[:, 1], kind="stable")
        if len(order) <= N_SPOTS:
            return order
        # The topmost and the lowest spot often lie on the border of the tissue.
        return order[np.linspace(0, len(order) - 1, N_SPOTS + 2).astype(int)[1:-1]]
    position = {name: i for i, name in enumerate(names)}
    spots = as_list(spots)
    if missing := [name for name in spots if name not in position]:
        raise KeyError(f"no spots {missing}; choose from the table's obs_names")
    return np.array([position[name] for name in spots])


def _read_squares(slide: Slide, index: np.ndarray, side_um: float) -> np.ndarray:
    """Read the squares around some spots (n, y, x, 3)."""
    return slide.pyramid.read(
        slide.centers[index],
        size=PATCH_PIXELS,
        um_per_px=side_um / PATCH_PIXELS,
        allow_upsampling=True,
    )


def draw_patch(ax: "Axes", picture: np.ndarray, side_um: float, bar_um: float) -> None:
    """Draw a square picture (y, x, 3) with a scale bar."""
    from matplotlib_scalebar.scalebar import ScaleBar

    ax.imshow(picture, extent=(0, side_um, side_um, 0))
    bar = ScaleBar(
        1.0,
        "um",
        location=SCALE_BAR["location"],
        box_alpha=SCALE_BAR["box_alpha"],
        fixed_value=bar_um,
        font_properties={"size": NAME_SIZE},
    )
    ax.add_artist(bar)
    ax.set(xticks=[], yticks=[])


def _draw_overview(
    ax: "Axes", slide: Slide, index: np.ndarray, patch_um: float, size: float
) -> None:
    """Draw the tissue with all spots, and the patches of some of them."""
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke

    height, width = slide.pyramid.levels[0].shape
    um_per_px = slide.pyramid.um_per_px
    picture, _ = read_overview(slide)
    ax.imshow(picture, extent=(0.0, width * um_per_px, height * um_per_px, 0.0))
    xy = slide.pyramid.to_pixels(slide.centers) * um_per_px
    area = OVERVIEW_AREA * size**2
    halo = withStroke(linewidth=1.2, foreground="white")  # for dark tissue
    spots = ax.scatter(
        xy[:, 0], xy[:, 1], s=area, facecolors="none", edgecolors="black", linewidths=0.5
    )
    spots.set_path_effects([halo])
    for x, y in xy[index]:
        corner = (x - patch_um / 2, y - patch_um / 2)
        ax.add_patch(
            plt.Rectangle(corner, patch_um, patch_um, fill=False, color=OUTLINE, linewidth=2)
        )
    ax.set(xlabel="µm", ylabel="µm")
    title = wrap(f"{slide.image_key}, {len(xy)} spots", OVERVIEW_TITLE_INCHES, TITLE_SIZE)
    ax.set_title(title, fontsize=TITLE_SIZE)
