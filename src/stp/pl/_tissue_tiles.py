"""Tiles of a slide on its tissue, drawn as squares of true size."""

from typing import TYPE_CHECKING

import numpy as np

from stp.images.regions import check_one_slide, spots_in_um
from stp.images.slides import SlideQuery, only_slide
from stp.images.tile_places import NO_PLACES
from stp.pl._tissue_image import N_RASTERIZED, SCALE_BAR, Tissue

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from spatialdata import SpatialData

GRAY = (0.3, 0.59, 0.11)  # of red, green and blue in the brightness of a pixel
PALE = 0.75  # contrast of the gray tissue


def find_tissue(sdata: "SpatialData", table: "AnnData", query: SlideQuery) -> Tissue:
    """Return the tiles in µm with the image under them, if there is one."""
    if len(sdata.images):
        return Tissue.from_slide(only_slide(sdata, table, query))
    xy = spots_in_um(sdata, table)
    if xy is None:
        raise ValueError(NO_PLACES)
    check_one_slide(table, xy)
    return Tissue(np.arange(len(xy)), xy, None, None)


def draw_gray_tissue(ax: "Axes", tissue: Tissue, title: str, tile_um: float | None) -> None:
    """Draw the tissue in pale gray, so that colors of tiles are seen on it."""
    from matplotlib_scalebar.scalebar import ScaleBar

    gray = tissue.image
    if gray is not None:
        brightness = gray.astype(np.float32) @ np.array(GRAY, np.float32)
        pale = (255 - PALE * (255 - brightness)).astype(np.uint8)
        gray = np.repeat(pale[..., None], 3, axis=2)
    Tissue(tissue.rows, tissue.xy, gray, tissue.image_um).draw_image(ax, title)
    if gray is None:  # the places are in µm without an image too
        ax.add_artist(ScaleBar(1.0, "um", **SCALE_BAR))
    widen(ax, tissue, tile_um)


def widen(ax: "Axes", tissue: Tissue, tile_um: float | None) -> None:
    """Show all tiles, and at least as much around them; y points down."""
    if tile_um is None:
        return
    low = tissue.xy.min(axis=0) - 1.5 * tile_um
    high = tissue.xy.max(axis=0) + 1.5 * tile_um
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.set_xlim(min(left, low[0]), max(right, high[0]))
    ax.set_ylim(max(bottom, high[1]), min(top, low[1]))


def add_tiles(
    ax: "Axes", tissue: Tissue, is_drawn: np.ndarray, tile_um: float | None
) -> "Collection":
    """Add squares of true size, or circles for spots."""
    from matplotlib.collections import PolyCollection

    if tile_um is None:
        return tissue.add_spots(ax, is_drawn)
    corners = tile_um / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    squares = PolyCollection(
        list(tissue.xy[is_drawn][:, None] + corners),
        linewidths=0,
        antialiased=False,  # which would draw lines between neighbors
        rasterized=int(is_drawn.sum()) > N_RASTERIZED,
    )
    ax.add_collection(squares, autolim=False)
    return squares
