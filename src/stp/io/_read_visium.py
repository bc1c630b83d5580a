"""Read the folder that Space Ranger writes for a Visium slide."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.scale import resolve_scale, um_per_unit_from_lattice
from stp.io._slide_image import (
    OpenImage,
    add_um,
    check_slide_image,
    image_element,
    open_slide_image,
    picture_element,
    read_picture,
    shows_spots,
)
from stp.io._space_ranger import find_space_ranger_files
from stp.io._space_ranger_table import SPOT_DIAMETER, read_scale_factors, read_spots
from stp.tables.valid_names import valid_name

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def read_visium(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> "SpatialData":
    """Read a Space Ranger folder with its full-resolution slide and its scale in µm.

    Folders of all versions are read: counts as an h5 file or as three text files, compressed or
    not, positions as CSV or parquet, and file names with the prefix of a sample, as in GEO. If
    there are only raw counts, these are read, and the log says so.

    Parameters
    ----------
    path
        The `outs` folder, or the folder with `outs` in it.
    image
        The full-resolution image given to Space Ranger. Without it there are only the hires and
        lowres pictures, which are too coarse for patches.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    name
        Name of the slide; by default that of the folder.

    Returns
    -------
    SpatialData with the elements and coordinate systems of spatialdata-io's reader, and "um". The
    table has all features, with their type in `var["feature_types"]`.

    Raises
    ------
    FileNotFoundError
        There is no folder at `path`, it lacks files, or there is no file at `image`.
    ValueError
        The folder holds several samples or Visium HD, spots have no position, the image is not
        the one on which the spots were placed, or the physical scale is unknown or contradicted.

    Examples
    --------
    >>> sdata = stp.io.read_visium("slide/outs", image="slide/full_resolution.tif", name="mine")
    >>> "um" in sdata.coordinate_systems, "mine_full_image" in sdata.images
    (True, True)
    """
    path = Path(path)
    files = find_space_ranger_files(path)
    full_image = open_slide_image(image)
    factors = read_scale_factors(files.scale_factors)
    adata = read_spots(files)
    centers = adata.obsm["spatial"]
    pictures = _read_pictures(files.pictures, factors, centers)
    if full_image is not None:
        check_slide_image(full_image, centers, factors, pictures)
    scale, _ = resolve_scale(
        {
            "um_per_px": um_per_px,
            "the file's metadata": None if full_image is None else full_image.um_per_px,
            "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel"),
            "the spot lattice": um_per_unit_from_lattice(adata.obs, centers),
        },
        factors[SPOT_DIAMETER],
    )
    name = valid_name(name or path.resolve().name)
    sdata = _assemble(name, adata, factors, pictures, full_image)
    add_um(sdata, name, scale)
    return sdata


def _read_pictures(
    paths: dict[str, Path], factors: dict[str, float], centers: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the pictures that have a scale factor and show the spots, by name."""
    pictures = {}
    for name, path in paths.items():
        factor = factors.get(f"tissue_{name}_scalef", 0.0)
        if factor > 0:
            picture = read_picture(path)
            if shows_spots(picture, centers, factor, path.name):
                pictures[name] = picture
    return pictures


def _assemble(
    name: str,
    adata: "AnnData",
    factors: dict[str, float],
    pictures: dict[str, np.ndarray],
    full_image: OpenImage | None,
) -> "SpatialData":
    """Return the slide with the elements and coordinate systems of spatialdata-io's reader."""
    import spatialdata
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    adata.obs["spot_id"] = np.arange(adata.n_obs)
    adata.obs["region"] = name
    adata.obs["region"] = adata.obs["region"].astype("category")
    adata.uns["spatial"] = {name: {"scalefactors": factors}}
    images = {}
    systems: dict[str, Any] = {name: Identity()}
    if full_image is not None:
        images[f"{name}_full_image"] = image_element(full_image, {name: Identity()})
    for key, picture in pictures.items():
        reduce = _scale(factors[f"tissue_{key}_scalef"])
        system = f"{name}_downscaled_{key}"
        systems[system] = reduce
        images[f"{name}_{key}_image"] = picture_element(
            picture, {system: Identity(), name: reduce.inverse()}
        )
    shapes = ShapesModel.parse(
        adata.obsm["spatial"],
        geometry=0,
        radius=factors[SPOT_DIAMETER] / 2,
        index=adata.obs["spot_id"].copy(),
        transformations=systems,
    )
    table = TableModel.parse(adata, region=name, region_key="region", instance_key="spot_id")
    return spatialdata.SpatialData(images=images, shapes={name: shapes}, tables={"table": table})


def _scale(factor: float) -> Any:
    from spatialdata.transformations import Scale

    return Scale([factor, factor], axes=("x", "y"))
