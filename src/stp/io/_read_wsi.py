"""Open a whole-slide image, and lay a grid of tiles on its tissue."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.images.pyramid import ImagePyramid
from stp.io._slide_elements import SlideImage, assemble_slide, image_elements, name_slides

if TYPE_CHECKING:
    from spatialdata import SpatialData

THUMBNAIL_UM = 16.0  # µm per pixel at which tissue is searched
MIN_SATURATION = 0.07  # of stained tissue; glass is white or gray
MAX_BRIGHTNESS = 230  # of the darkest channel of stained tissue


def read_wsi(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    tile_um: float | None = None,
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
    min_tissue
        Share of a tile that must be tissue, stained and not white, above 0 and up to 1.
    name
        Name of the slide: its tiles are shapes `name`, its image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData whose table has a row per tile and no genes. `stp.tl.embed_images` embeds a patch
    at the center of each tile.

    Raises
    ------
    ImportError
        The slide needs OpenSlide, which is not installed.
    ValueError
        The scale is unknown or contradicted, pixels are not square, it is not clear which image
        of the file is the slide, or no tile has enough tissue.

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
    pyramid = ImagePyramid.from_path(path, um_per_px=um_per_px)
    (name,) = name_slides([name])
    image = SlideImage(name, pyramid.levels, pyramid.um_per_px)
    if tile_um is None:
        return spatialdata.SpatialData(images=image_elements(image))
    centers, side = _tiles_on_tissue(pyramid, tile_um, min_tissue)
    counts = np.empty((len(centers), 0), dtype=np.float32)
    adata = anndata.AnnData(counts, obsm={"spatial": centers})
    adata.obs_names = [f"{name}_{int(x)}_{int(y)}" for x, y in centers]
    return assemble_slide(adata, centers, side / 2, image)


def _tiles_on_tissue(
    pyramid: ImagePyramid, tile_um: float, min_tissue: float
) -> tuple[np.ndarray, float]:
    """Return the centers (n, 2) of the tiles on tissue and the side of a tile, in pixels."""
    height, width = pyramid.levels[0].shape
    side = tile_um / pyramid.um_per_px
    x = np.arange(side / 2, width, side)
    y = np.arange(side / 2, height, side)
    centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    size = max(4, round(tile_um / THUMBNAIL_UM))
    thumbnails = pyramid.read(centers, size=size, um_per_px=tile_um / size, allow_upsampling=True)
    is_inside = pyramid.inside(centers, size=1, um_per_px=tile_um)
    tissue_share = _is_tissue(thumbnails).mean(axis=(1, 2)) * is_inside
    is_on_tissue = tissue_share >= min_tissue
    if not is_on_tissue.any():
        raise ValueError(
            f"no tile of {tile_um:g} µm is {min_tissue:.0%} tissue, the fullest is "
            f"{tissue_share.max(initial=0):.0%}: check um_per_px ({pyramid.um_per_px:g}), or "
            "choose a smaller tile_um or min_tissue"
        )
    return centers[is_on_tissue], side


def _is_tissue(rgb: np.ndarray) -> np.ndarray:
    """Return which pixels (..., 3) are stained, not the white or gray of glass."""
    brightest = rgb.max(axis=-1).astype(int)
    darkest = rgb.min(axis=-1).astype(int)
    is_saturated = brightest - darkest > MIN_SATURATION * np.maximum(brightest, 1)
    return is_saturated & (darkest < MAX_BRIGHTNESS)
