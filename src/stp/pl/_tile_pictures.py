"""Pictures of tiles at true scale: those with the highest and the lowest values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.pyramid import ImagePyramid
from stp.images.source_slide import open_source_slide
from stp.images.tile_places import TilePlaces
from stp.pl._patches import NAME_SIZE, PATCH_PIXELS, draw_patch
from stp.tables import keys

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

BAR_SHARE = 0.45  # longest scale bar, as a share of a tile
BAR_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # µm


@dataclass(frozen=True)
class TilePictures:
    """The pixels of a slide and the places of its tiles."""

    pyramid: ImagePyramid
    places: TilePlaces
    side_um: float

    def draw(self, axes: Sequence["Axes"], index: np.ndarray, texts: Sequence[str]) -> None:
        """Draw the tiles at these positions, one in each of the axes; axes left over are removed.

        Parameters
        ----------
        axes
            Where tiles are drawn.
        index
            Positions (n,) of the tiles among the places.
        texts
            Title of each tile.
        """
        pictures = self.pyramid.read(
            self.places.centers[index] * self.places.um_per_px / self.pyramid.um_per_px,
            size=PATCH_PIXELS,
            um_per_px=self.side_um / PATCH_PIXELS,
            allow_upsampling=True,
        )
        for ax, picture, text in zip(axes, pictures, texts, strict=False):
            draw_patch(ax, picture, self.side_um, _bar_um(self.side_um))
            ax.set_title(text, fontsize=NAME_SIZE)
        for ax in axes[len(index) :]:
            ax.remove()


def choose_tiles(numbers: np.ndarray, n: int, call: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the highest and of the lowest numbers, without an overlap.

    Raises
    ------
    ValueError
        No number is finite; the message names the `call` that makes them.
    """
    has_number = np.flatnonzero(np.isfinite(numbers))
    if not len(has_number):
        raise ValueError(f"no tile has a score; run {call} again")
    order = has_number[np.argsort(-numbers[has_number], kind="stable")]
    n_highest = min(n, -(-len(order) // 2))
    n_lowest = min(n, len(order) // 2)
    return order[:n_highest], order[::-1][:n_lowest]


def side_of_tiles(table: "AnnData", key: str, record: dict[str, Any], places: TilePlaces) -> float:
    """Return the side of a tile, or of the patch that the encoder saw at a spot, in µm."""
    if record:
        return float(record["tile_um"])
    rep = table.uns[key]["params"]["use_rep"]
    entry = table.uns.get(rep, table.uns.get(rep.removesuffix(keys.aligned("")), {}))
    params = entry.get("params", {})
    if "size" in params and "um_per_px" in params:
        return float(params["size"] * params["um_per_px"])
    return places.side * places.um_per_px


def open_pixels(
    record: dict[str, Any], image: str | Path | None, places: TilePlaces
) -> ImagePyramid:
    """Return the slide in pixels: of the SpatialData, or the file that the tiles were laid on."""
    if image is None and places.pyramid is not None:
        return ImagePyramid(places.pyramid.levels, places.um_per_px)
    return open_source_slide(record, image, places.um_per_px)


def _bar_um(side_um: float) -> int:
    """Return a round length for the scale bar of a tile."""
    fitting = [length for length in BAR_LENGTHS if length <= BAR_SHARE * side_um]
    return max(fitting, default=BAR_LENGTHS[0])


def label_rows(axes: np.ndarray) -> None:
    """Say at the left what each row has."""
    for ax, name in zip(axes[:, 0], ("highest", "lowest"), strict=True):
        if ax.figure is not None:
            ax.set_ylabel(name)
