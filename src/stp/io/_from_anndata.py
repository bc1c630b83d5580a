"""Join an AnnData and its images in a SpatialData."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, logger, preview
from stp.images.files.opening import open_file
from stp.images.lattice import lattice_scale, warn_if_exchanged
from stp.images.level_places import place_levels
from stp.images.levels import Level, open_array
from stp.images.placement import check_spots_on_image
from stp.images.scale import Scale, record_scale, record_source, resolve_scale, scale_factors
from stp.images.sources import open_pixels
from stp.images.spacing import warn_if_not_plausible
from stp.io._libraries import check_keys, only_library, split_libraries, value_of
from stp.io._slide_elements import SlideImage, SlideSpots, assemble_slides
from stp.tables.coordinates import has_coordinates, read_coordinates, require_coordinates
from stp.tables.valid_names import make_storable

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

VISIUM_SPOT_UM = 55.0


def from_anndata(
    adata: "AnnData",
    image: Any,
    *,
    library_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    spatial_key: str = "spatial",
    spot_diameter_um: float | None = None,
    spot_pitch_um: float | Mapping[str, float] | None = None,
    missing: str = "raise",
    name: str | None = None,
) -> "SpatialData":
    """Join an AnnData and its H&E image, or those of several slides, in a SpatialData.

    Parameters
    ----------
    adata
        Spots with their centers in `obsm[spatial_key]`, as x, y pixels of the full-resolution
        image. The columns of a DataFrame are read by their names, such as `x` and `y`.
    image
        Path of a TIFF, SVS, OME-TIFF, JPEG or PNG file (opened lazily); a NumPy, Zarr or Dask array
        (y, x, 3) or (3, y, x); a PIL image; an xarray DataArray or DataTree, such as an image of a
        SpatialData; or None for counts without an image. With `library_key`, a mapping from each
        library to one of these.
    library_key
        Column of `obs` with the slide of each spot, if the table has several slides.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error. With `library_key`, one value for all
        slides or a mapping from library to value.
    spatial_key
        Name of the spot coordinates in `obsm`.
    spot_diameter_um
        Diameter of a spot in µm for drawing; by default 55.
    spot_pitch_um
        µm between neighboring spots of a square grid, such as 200 for Spatial Transcriptomics.
    missing
        "raise" refuses spots without coordinates, and "drop" leaves them out.
    name
        Name of the slide, by default "slide": its spots are shapes `name`, its image is
        `f"{name}_full_image"`. Stores and results have this name too. With `library_key`, slides
        have the names of their libraries.

    Returns
    -------
    SpatialData with the coordinate systems "global" (pixels) and "um". With `library_key`, each
    slide has its own, `f"global-{name}"` and `f"um-{name}"`, and the table annotates all slides;
    `sdata.filter_by_coordinate_system(f"um-{name}")` returns one of them.

    Notes
    -----
    SpatialData stores names of letters, digits, "_", "." and "-" only. Other names are changed in
    the result, and a warning lists them.

    Raises
    ------
    KeyError
        `obsm[spatial_key]` or `obs[library_key]` is missing.
    TypeError
        `image` is of another type.
    ValueError
        The physical scale is unknown or contradicted, most spots lie outside the image, the image
        is not 8-bit RGB or its axes can be read in two ways, spots have no coordinates, the table
        has several slides and `library_key` is missing, the libraries are not the keys of `image`,
        or the AnnData is backed.

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
    adata, centers = _choose_spots(adata, spatial_key, missing)
    if library_key is None:
        libraries = [only_library(adata, centers, image, name or "slide")]
    elif name is not None:
        raise ValueError(
            f"name={name!r} is the name of one slide, and library_key= names slides after their "
            "libraries; leave name= out"
        )
    else:
        libraries = split_libraries(adata, centers, image, library_key)
    check_keys(um_per_px, "um_per_px", libraries, library_key)
    check_keys(spot_pitch_um, "spot_pitch_um", libraries, library_key)
    slides = []
    scales = {}
    for library in libraries:
        pixels = centers[library.rows]
        levels, tagged_um = _open_image(library.image)
        factors = scale_factors(adata.uns, library.label)
        if levels:
            check_spots_on_image(pixels, levels[0].shape, "the image", factors)
        scale = _slide_scale(
            adata.obs.iloc[library.rows],
            pixels,
            factors,
            tagged_um=tagged_um,
            um_per_px=value_of(um_per_px, library),
            spot_pitch_um=value_of(spot_pitch_um, library),
        )
        warn_if_not_plausible(pixels * scale.um_per_px, scale.um_per_px, library.region)
        if levels:
            warn_if_exchanged(adata.obs.iloc[library.rows], pixels, library.region)
        radius = (spot_diameter_um or VISIUM_SPOT_UM) / scale.um_per_px / 2
        picture = SlideImage(library.region, levels, scale.um_per_px, library_key is not None)
        slides.append(SlideSpots(library.rows, pixels, radius, picture))
        scales[f"{library.region}_full_image"] = scale
    table = adata.copy()
    make_storable(table)
    sdata = assemble_slides(table, slides)
    for image_key in sdata.images:
        record_source(sdata, image_key, scales[image_key])
        if um_per_px is not None:
            record_scale(sdata, image_key, scales[image_key])
    return sdata


def _slide_scale(
    obs: "pd.DataFrame",
    centers: np.ndarray,
    factors: Mapping[str, float],
    *,
    tagged_um: float | None,
    um_per_px: float | None,
    spot_pitch_um: float | None,
) -> Scale:
    """Return the scale of the image of a slide; `centers` (n, 2) are those of its spots."""
    lattice = lattice_scale(obs, centers, spot_pitch_um=spot_pitch_um)
    return resolve_scale(
        {
            "um_per_px": um_per_px,
            "the file's metadata": tagged_um,
            "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel"),
            **lattice.um_per_unit,
        },
        factors.get("spot_diameter_fullres"),
        lattice.is_square,
    )


def _choose_spots(adata: "AnnData", spatial_key: str, missing: str) -> tuple["AnnData", np.ndarray]:
    """Return the spots with coordinates, and these (n, 2) in pixels.

    Raises
    ------
    ValueError
        Spots have no coordinates, and `missing` is "raise"; or no spot has any.
    """
    if missing not in ("raise", "drop"):
        raise ValueError(f'missing= is "raise" or "drop", not {missing!r}')
    centers = read_coordinates(adata, spatial_key)
    is_placed = has_coordinates(centers)
    if missing == "raise" or not is_placed.any():
        require_coordinates(
            centers,
            adata.obs_names,
            f"write them to obsm[{spatial_key!r}], or pass missing='drop' to leave these spots out",
        )
    if not is_placed.all():
        names = adata.obs_names[~is_placed]
        logger.info(
            f"Left out {len(names):,} of {count(adata.n_obs, 'spot')}, which have no coordinates: "
            f"{preview(names)}."
        )
        adata = adata[is_placed]
    return adata, centers[is_placed]


def _open_image(image: Any) -> tuple[tuple[Level, ...], float | None]:
    """Return the levels of a file or an array, and µm per pixel if a file has it."""
    if image is None:
        return (), None
    if isinstance(image, str | os.PathLike):
        arrays, tagged_um = open_file(os.fspath(image))
        return place_levels(tuple(open_array(array) for array in arrays)), tagged_um
    return open_pixels(image), None
