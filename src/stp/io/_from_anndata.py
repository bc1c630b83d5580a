"""Join an AnnData and its image in a SpatialData."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.files import open_file
from stp.images.lattice import lattice_scale
from stp.images.levels import Level, open_array
from stp.images.placement import check_spots_on_image
from stp.images.scale import record_scale, resolve_scale, scale_factors
from stp.io._slide_elements import SlideImage, assemble_slide

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

VISIUM_SPOT_UM = 55.0


def from_anndata(
    adata: "AnnData",
    image: Any,
    *,
    um_per_px: float | None = None,
    spatial_key: str = "spatial",
    spot_diameter_um: float | None = None,
    spot_pitch_um: float | None = None,
    name: str = "slide",
) -> "SpatialData":
    """Join an AnnData and its H&E image in a SpatialData.

    Parameters
    ----------
    adata
        Spots with their centers in `obsm[spatial_key]`, as x, y pixels of the full-resolution
        image.
    image
        Path of a TIFF, SVS, OME-TIFF, JPEG or PNG file (opened lazily), an RGB array (y, x, 3) or
        (3, y, x), or None for counts without an image.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    spatial_key
        Name of the spot coordinates in `obsm`.
    spot_diameter_um
        Diameter of a spot in µm for drawing; by default 55.
    spot_pitch_um
        µm between neighboring spots of a square grid, such as 200 for Spatial Transcriptomics.
    name
        Name of the slide: its spots are shapes `name`, its image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData with the coordinate systems "global" (pixels) and "um".

    Raises
    ------
    KeyError
        `obsm[spatial_key]` is missing.
    ValueError
        The physical scale is unknown or contradicted, most spots lie outside the image, the image
        is not 8-bit RGB, or the AnnData is backed.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.full((2500, 2700, 3), 255, dtype=np.uint8)  # or "slide.tif"
    >>> sdata = stp.io.from_anndata(adata, picture, um_per_px=1.0, name="mine")
    >>> list(sdata.images), list(sdata.shapes)
    (['mine_full_image'], ['mine'])
    """
    if adata.isbacked:
        raise ValueError(
            "a backed AnnData would be read whole; call .to_memory() first and pass its result"
        )
    if spatial_key not in adata.obsm:
        raise KeyError(
            f"adata.obsm[{spatial_key!r}] is missing: put spot centers there, x and y in pixels "
            "of the full-resolution image, or pass spatial_key= one of "
            f"{list(adata.obsm)}"
        )
    centers = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    levels, tagged_um = _open_image(image)
    factors = scale_factors(adata.uns)
    if levels:
        check_spots_on_image(centers, levels[0].shape, "the image", factors)
    lattice = lattice_scale(adata.obs, centers, spot_pitch_um=spot_pitch_um)
    scale = resolve_scale(
        {
            "um_per_px": um_per_px,
            "the file's metadata": tagged_um,
            "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel"),
            **lattice.um_per_unit,
        },
        factors.get("spot_diameter_fullres"),
        lattice.is_square,
    )
    radius = (spot_diameter_um or VISIUM_SPOT_UM) / scale.um_per_px / 2
    picture = SlideImage(name, levels, scale.um_per_px)
    sdata = assemble_slide(adata.copy(), centers, radius, picture)
    if um_per_px is not None:
        for image_key in sdata.images:
            record_scale(sdata, image_key, scale)
    return sdata


def _open_image(image: Any) -> tuple[tuple[Level, ...], float | None]:
    """Return the levels of a file or an array, and µm per pixel if a file has it."""
    if image is None:
        return (), None
    if isinstance(image, str | Path):
        arrays, tagged_um = open_file(image)
        return tuple(open_array(array) for array in arrays), tagged_um
    return (open_array(image),), None
