"""Open a whole-slide image, and lay a grid of tiles on its tissue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, logger, warn
from stp.images.pyramid import ImagePyramid
from stp.images.tissue import is_ink, is_stained, share_in_polygons
from stp.io._slide_elements import SlideImage, assemble_slide, image_elements, name_slides
from stp.io._slide_record import TileSettings, describe_slide
from stp.io._tissue_polygons import read_tissue
from stp.tables.keys import SLIDE

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry
    from spatialdata import SpatialData

THUMBNAIL_UM = 16.0  # µm per pixel at which tissue is searched
N_CHECKED = 256  # tiles in polygons of the user that are searched for stain
MIN_STAINED = 0.1  # share of these tiles that must be stained


def read_wsi(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    tile_um: float | None = None,
    tissue: Any = None,
    tissue_class: str | Sequence[str] | None = None,
    min_tissue: float = 0.5,
    name: str = "wsi",
) -> "SpatialData":
    """Open a whole-slide image lazily, with a grid of tiles on tissue as spots without counts.

    Parameters
    ----------
    path
        A TIFF file, such as SVS, NDPI, SCN or OME-TIFF; a JPEG or PNG file; or a slide that
        OpenSlide reads: Ventana BIF, MIRAX, VMS or DICOM. The content decides, not the name.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    tile_um
        Side of a tile in µm; by default there are no tiles and no table, only the image.
    tissue
        Where tissue is, in pixels of level 0: path of a GeoJSON file, as QuPath, TRIDENT and
        LazySlide write it, shapely polygons, or a GeoDataFrame. By default tissue is what is
        stained, without glass and without blue, green and black ink of pens. Red and violet ink
        look like a stain and count as tissue. See also :func:`stp.images.mask_to_polygons`.
    tissue_class
        Class or classes of the annotations in a GeoJSON file that are tissue; needed if they have
        several classes.
    min_tissue
        Share of a tile that must be tissue, above 0 and up to 1.
    name
        Name of the slide: its tiles are shapes `name`, its image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData whose table has a row per tile and no genes. `stp.tl.embed_images` embeds a patch
    at the center of each tile, `stp.pl.tissue` draws the tiles, and `stp.io.write_tiles` writes
    them. The attribute `stp_slide` records the file and how the tiles were laid.

    Raises
    ------
    FileNotFoundError
        There is no file at `path` or `tissue`.
    ImportError
        The slide needs OpenSlide, which is not installed.
    KeyError
        The GeoJSON file has no annotation of `tissue_class`.
    TypeError
        `tissue` is neither a path nor polygons.
    ValueError
        The scale is unknown or contradicted, pixels are not square, it is not clear which image
        of the file is the slide, no tile has enough tissue, or `tissue` has no polygons,
        annotations of several classes, or lies outside the image.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> slide.tables["table"].n_vars
    0
    """
    import anndata
    import spatialdata

    if not 0 < min_tissue <= 1:
        raise ValueError(f"min_tissue is a share of a tile, above 0 and up to 1, not {min_tissue}")
    if tile_um is None and tissue is not None:
        raise ValueError("tissue= chooses tiles, and there are none; pass tile_um=, their side")
    if tissue is None and tissue_class is not None:
        raise ValueError("tissue_class= chooses from a GeoJSON file; pass its path as tissue=")
    pyramid = ImagePyramid.from_path(path, um_per_px=um_per_px)
    (name,) = name_slides([name])
    image = SlideImage(name, pyramid.levels, pyramid.um_per_px)
    settings = TileSettings(tile_um, min_tissue, tissue, tissue_class)
    record = describe_slide(path, pyramid, settings)
    if tile_um is None:
        return spatialdata.SpatialData(images=image_elements(image), attrs={SLIDE: record})
    if not 0 < tile_um < np.inf:
        raise ValueError(f"tile_um must be positive, not {tile_um}")
    grid = _Grid.on_slide(pyramid, tile_um)
    if tissue is None:
        centers = _tiles_with_stain(pyramid, grid, min_tissue)
    else:
        polygons = read_tissue(tissue, tissue_class, pyramid.levels[0].shape)
        centers = _tiles_in_polygons(pyramid, grid, min_tissue, polygons)
    counts = np.empty((len(centers), 0), dtype=np.float32)
    adata = anndata.AnnData(counts, obsm={"spatial": centers})
    adata.obs_names = [f"{name}_{int(x)}_{int(y)}" for x, y in centers]
    sdata = assemble_slide(adata, centers, grid.side / 2, image)
    sdata.attrs[SLIDE] = record
    return sdata


@dataclass(frozen=True)
class _Grid:
    """Square tiles next to each other that cover a slide, in pixels of level 0."""

    x: np.ndarray  # (n_x,) centers of the columns
    y: np.ndarray  # (n_y,) centers of the rows
    side: float
    tile_um: float
    is_inside: np.ndarray  # (n_y * n_x,) whether a tile lies completely on the image

    @classmethod
    def on_slide(cls, pyramid: ImagePyramid, tile_um: float) -> "_Grid":
        """Return the grid of tiles with this side on a slide."""
        height, width = pyramid.levels[0].shape
        side = tile_um / pyramid.um_per_px
        x = np.arange(side / 2, width, side)
        y = np.arange(side / 2, height, side)
        is_inside = pyramid.inside(_cross(x, y), size=1, um_per_px=tile_um)
        return cls(x, y, side, tile_um, is_inside)

    @property
    def centers(self) -> np.ndarray:
        """Centers (n, 2) of all tiles, row by row."""
        return _cross(self.x, self.y)

    def tiles(self, is_on_tissue: np.ndarray) -> str:
        """Return in words how many of the tiles on the image are on tissue."""
        return f"{is_on_tissue.sum()} of {self.is_inside.sum()} tiles of {self.tile_um:g} µm"


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _tiles_with_stain(pyramid: ImagePyramid, grid: _Grid, min_tissue: float) -> np.ndarray:
    """Return the centers (n, 2) of the tiles that are stained, and not by the ink of a pen."""
    thumbnails = _read_thumbnails(pyramid, grid.centers, grid.tile_um)
    stained = is_stained(thumbnails)
    tissue = stained & ~is_ink(thumbnails)
    stained_share = stained.mean(axis=(1, 2)) * grid.is_inside
    tissue_share = tissue.mean(axis=(1, 2)) * grid.is_inside
    is_on_tissue = tissue_share >= min_tissue
    n_stained = np.count_nonzero(stained_share >= min_tissue)
    n_ink = int(n_stained - np.count_nonzero(is_on_tissue))
    if not is_on_tissue.any():
        ink = f" without the ink of pens, which covers {n_ink} tiles" if n_ink else ""
        raise ValueError(
            f"no tile of {grid.tile_um:g} µm is {min_tissue:.0%} tissue{ink}, the fullest is "
            f"{tissue_share.max(initial=0):.0%}: check um_per_px ({pyramid.um_per_px:g}), or "
            "choose a smaller tile_um or min_tissue"
        )
    logger.info(
        f"Kept {grid.tiles(is_on_tissue)}, of which at least {min_tissue:.0%} is stained tissue; "
        f"left out {count(n_ink, 'tile')} with pen marks."
    )
    return grid.centers[is_on_tissue]


def _tiles_in_polygons(
    pyramid: ImagePyramid, grid: _Grid, min_tissue: float, polygons: "list[BaseGeometry]"
) -> np.ndarray:
    """Return the centers (n, 2) of the tiles that lie in polygons of tissue."""
    shares = share_in_polygons(polygons, grid.x, grid.y, grid.side).ravel() * grid.is_inside
    is_on_tissue = shares >= min_tissue * (1 - 1e-9)  # areas are rounded
    if not is_on_tissue.any():
        raise ValueError(
            f"no tile of {grid.tile_um:g} µm lies {min_tissue:.0%} in the polygons of tissue=, the "
            f"fullest {shares.max(initial=0):.0%}: choose a smaller tile_um or min_tissue, and "
            "check that the polygons are in pixels of level 0"
        )
    logger.info(
        f"Kept {grid.tiles(is_on_tissue)}, of which at least {min_tissue:.0%} lies in the "
        f"{count(len(polygons), 'polygon')} of tissue=."
    )
    centers = grid.centers[is_on_tissue]
    _warn_if_glass(pyramid, centers, grid.tile_um)
    return centers


def _warn_if_glass(pyramid: ImagePyramid, centers: np.ndarray, tile_um: float) -> None:
    """Warn if tiles in the polygons of a user are glass, as they are in a wrong unit."""
    step = -(-len(centers) // N_CHECKED)
    stained = is_stained(_read_thumbnails(pyramid, centers[::step], tile_um)).mean()
    if stained < MIN_STAINED:
        warn(
            f"only {stained:.0%} of the pixels of the tiles in tissue= are stained: are the "
            "coordinates pixels of level 0, not µm and not pixels of a thumbnail? "
            "stp.pl.tissue(sdata) draws the tiles"
        )


def _read_thumbnails(pyramid: ImagePyramid, centers: np.ndarray, tile_um: float) -> np.ndarray:
    """Return the tiles (n, y, x, 3) at about 16 µm per pixel."""
    size = max(4, round(tile_um / THUMBNAIL_UM))
    return pyramid.read(centers, size=size, um_per_px=tile_um / size, allow_upsampling=True)
