"""The elements of a tile store in memory: the table, its tiles as squares, and a thumbnail."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import coordinate_systems
from stp.images.pyramid import ImagePyramid, PatchWindow
from stp.images.regions import annotate_shapes
from stp.images.slides import Slide
from stp.tables.keys import SLIDE, SPATIAL, TABLE

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

PLACE_NOISE = 0.01  # pixels; centers of squares are rounded, and rows of tiles stay straight
BLOCK_PIXELS = 128  # side of the squares of which a thumbnail is put together
BLOCK_BYTES = 256 << 20  # of the pixels under such a square


def assemble_tiles(
    adata: "AnnData",
    centers: np.ndarray | None,
    name: str,
    record: Mapping[str, Any],
    images: Mapping[str, Any] | None = None,
) -> "SpatialData":
    """Return a SpatialData of tiles without the pixels of their slide.

    Parameters
    ----------
    adata
        Table of the tiles, which is changed.
    centers
        Centers (n, 2) of the tiles as x, y in µm; None if they are unknown.
    name
        Name of the tiles.
    record
        Record of their slide. The unit of the coordinates is its `um_per_unit`.
    images
        Images of the slide, such as a thumbnail.
    """
    import spatialdata
    from spatialdata.models import TableModel

    shapes = {}
    if centers is None or record["tile_um"] is None or not len(centers):
        adata.uns.pop("spatialdata_attrs", None)
        table = TableModel.parse(adata)
    else:
        places = centers / record["um_per_unit"]
        if SPATIAL in adata.obsm and np.allclose(adata.obsm[SPATIAL], places, atol=PLACE_NOISE):
            places = np.asarray(adata.obsm[SPATIAL], dtype=np.float64)
        adata.obsm[SPATIAL] = places
        side = record["tile_um"] / record["um_per_unit"]
        shapes[name] = _make_squares(places, side, tile_systems(record))
        table = annotate_shapes(adata, name)
    sdata = spatialdata.SpatialData(images=dict(images or {}), shapes=shapes, tables={TABLE: table})
    sdata.attrs = {SLIDE: dict(record)}
    return sdata


def tile_systems(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coordinate systems of tiles: "um", and "global" for pixels of level 0."""
    from spatialdata.transformations import Identity, Scale

    unit = record["um_per_unit"]
    systems: dict[str, Any] = {"um": Scale([unit, unit], axes=("x", "y"))}
    if record["um_per_px"] is not None:
        systems["global"] = Identity()
    return systems


def _make_squares(centers: np.ndarray, side: float, systems: Mapping[str, Any]) -> "GeoDataFrame":
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel

    low = centers - side / 2
    high = centers + side / 2
    squares = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    frame = geopandas.GeoDataFrame(geometry=squares, index=np.arange(len(squares)))
    return ShapesModel.parse(frame, transformations=dict(systems))


def make_thumbnail(slide: Slide, element: Any, um_per_px: float) -> Any:
    """Return a small picture of a slide as an image in the coordinate systems of the slide.

    Parameters
    ----------
    slide
        The slide.
    element
        Its image in the SpatialData.
    um_per_px
        µm per pixel of the thumbnail, unless the slide is coarser.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale, Sequence

    pyramid = slide.pyramid
    um_per_px = max(um_per_px, pyramid.um_per_px)
    factor = um_per_px / pyramid.um_per_px
    to_slide = Scale([factor, factor], axes=("x", "y"))
    systems = {
        name: Sequence([to_slide, transformation])
        for name, transformation in coordinate_systems(element).items()
    }
    return Image2DModel.parse(
        read_thumbnail(pyramid, um_per_px),
        dims=("y", "x", "c"),
        c_coords=["r", "g", "b"],
        transformations=systems,
    )


def read_thumbnail(pyramid: ImagePyramid, um_per_px: float) -> np.ndarray:
    """Return the whole image (height, width, 3) at a coarse scale, read as a stream."""
    factor = um_per_px / pyramid.um_per_px
    height, width = (max(1, round(side / factor)) for side in pyramid.levels[0].shape)
    size = int(np.clip(np.sqrt(BLOCK_BYTES / 3) / factor, 1, BLOCK_PIXELS))
    tops = np.arange(0, height, size)
    lefts = np.arange(0, width, size)
    corners = np.stack(np.meshgrid(lefts, tops), axis=-1).reshape(-1, 2)
    thumbnail = np.empty((height, width, 3), np.uint8)
    in_pixels = ImagePyramid(pyramid.levels, pyramid.um_per_px)
    centers = (corners + size / 2) * factor
    for rows, blocks in in_pixels.stream(centers, PatchWindow(size, um_per_px), batch_size=16):
        for row, block in zip(rows, blocks, strict=True):
            left, top = corners[row]
            part = thumbnail[top : top + size, left : left + size]
            part[:] = block[: part.shape[0], : part.shape[1]]
    return thumbnail
