"""Where the tiles of a slide are, in pixels of its full resolution."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import affine_of, linear_scale
from stp.images.pyramid import ImagePyramid
from stp.images.regions import check_one_slide, find_spots, list_regions, spots_in_um
from stp.images.scale import TOLERANCE
from stp.images.slides import SlideQuery, only_slide
from stp.tables import keys

if TYPE_CHECKING:
    from anndata import AnnData

NO_PLACES = (
    "the tiles have no places; features of TRIDENT and CLAM have them after "
    "stp.io.read_features(path, um_per_px=), with the µm per pixel of the slide"
)


@dataclass(frozen=True)
class TilePlaces:
    """The tiles of a slide in pixels of level 0.

    Parameters
    ----------
    rows
        Positions (n,) of the tiles in the table.
    centers
        Centers (n, 2) as x, y.
    side
        Side of a tile, or diameter of a spot.
    um_per_px
        µm per pixel.
    pyramid
        The slide, if the SpatialData has its pixels.
    """

    rows: np.ndarray
    centers: np.ndarray
    side: float
    um_per_px: float
    pyramid: ImagePyramid | None


def has_slide_pixels(sdata: Any) -> bool:
    """Return whether a SpatialData has an image of its slide, not only that of a tile store."""
    return bool(set(sdata.images) - {keys.THUMBNAIL})


def tile_record(sdata: Any) -> dict[str, Any]:
    """Return the record of the slide of tiles; empty for measured spots.

    Raises
    ------
    TypeError
        `sdata` is no SpatialData.
    """
    if not hasattr(sdata, "shapes"):
        raise TypeError(
            f"the places of tiles are needed, and {type(sdata).__name__} has none: pass the "
            "SpatialData of the tiles"
        )
    record = dict(sdata.attrs.get(keys.SLIDE, {}))
    return record if record.get("tile_um") is not None else {}


def find_tile_places(sdata: Any, table: "AnnData", um_per_px: float | None = None) -> TilePlaces:
    """Return the places of the tiles or spots of one slide.

    Parameters
    ----------
    sdata
        SpatialData with the shapes of the tiles.
    table
        Table of the tiles.
    um_per_px
        µm per pixel of the slide at full resolution, if no source has it.

    Raises
    ------
    TypeError
        `sdata` is no SpatialData.
    ValueError
        Tiles have no places, the table covers several slides, or the scale is unknown or
        contradicted.
    """
    record = tile_record(sdata)
    if has_slide_pixels(sdata):
        slide = only_slide(sdata, table, SlideQuery(um_per_px=um_per_px))
        pyramid = slide.pyramid
        if record:
            side = record["tile_um"] / pyramid.um_per_px
        else:
            spots = find_spots(sdata, slide.region)
            affine = affine_of(spots, slide.coordinate_system)
            side = _size_of(spots) * linear_scale(affine) * linear_scale(pyramid.affine)
        centers = pyramid.to_pixels(slide.centers)
        return TilePlaces(slide.rows, centers, side, pyramid.um_per_px, pyramid)
    centers_um = spots_in_um(sdata, table)
    if centers_um is None:
        raise ValueError(NO_PLACES)
    check_one_slide(table, centers_um)
    scale = _agree(record.get("um_per_px"), um_per_px)
    side_um = record.get("tile_um") or _size_in_um(sdata, table)
    rows = np.arange(len(centers_um))
    return TilePlaces(rows, centers_um / scale, side_um / scale, scale, None)


def _agree(recorded: float | None, um_per_px: float | None) -> float:
    """Return the scale of the slide, which the record or the caller knows."""
    if recorded is None and um_per_px is None:
        raise ValueError(
            "the µm per pixel of the slide are not recorded; pass um_per_px=, so that places are "
            "in pixels of level 0"
        )
    if recorded is None or um_per_px is None:
        return float(um_per_px if recorded is None else recorded)  # type: ignore[arg-type]
    if abs(np.log(um_per_px / recorded)) > np.log1p(TOLERANCE):
        raise ValueError(
            f"um_per_px= is {um_per_px:g}, and the tiles were laid at {recorded:g}; leave it out"
        )
    return float(recorded)


def _size_in_um(sdata: Any, table: "AnnData") -> float:
    """Return the diameter or side of the spots in µm."""
    spots = find_spots(sdata, list_regions(table)[0].name)
    return _size_of(spots) * linear_scale(affine_of(spots, "um"))


def _size_of(spots: Any) -> float:
    """Return the diameter of circles, or the side of squares."""
    if not hasattr(spots, "geometry"):
        raise ValueError(
            "the spots of the table are labels, which are no tiles; stp.io.read_wsi(path, "
            "tile_um=) makes tiles"
        )
    if "radius" in spots:
        return 2 * float(np.median(spots["radius"]))
    return float(np.sqrt(np.median(spots.area)))
