"""Read the folder that Space Ranger writes for a Visium slide."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.images.coordinates import coordinate_systems
from stp.images.lattice import um_per_unit_from_lattice
from stp.images.scale import resolve_scale

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read_visium(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> "SpatialData":
    """Read a Space Ranger folder with its full-resolution slide and its scale in µm.

    spatialdata-io reads the folder; this function adds the coordinate system "um".

    Parameters
    ----------
    path
        The `outs` folder.
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
    SpatialData with the coordinate systems of spatialdata-io and "um".

    Raises
    ------
    FileNotFoundError
        There is no folder at `path`, or no file at `image`.
    ValueError
        The physical scale is unknown or contradicted.

    Examples
    --------
    >>> sdata = stp.io.read_visium("slide/outs", image="slide/full_resolution.tif", name="mine")
    >>> "um" in sdata.coordinate_systems, "mine_full_image" in sdata.images
    (True, True)
    """
    import spatialdata_io

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no Space Ranger folder at {path}")
    if image is not None and not Path(image).is_file():
        raise FileNotFoundError(f"no image at {image}")
    name = name or path.resolve().name
    # spatialdata-io would look for a relative path in its folder.
    image_file = None if image is None else Path(image).resolve()
    sdata = spatialdata_io.visium(path, dataset_id=name, fullres_image_file=image_file)
    table = sdata.tables["table"]
    table.var_names_make_unique()
    centers = np.asarray(table.obsm["spatial"], dtype=float)
    scale = resolve_scale(
        {
            "um_per_px": um_per_px,
            "the spot lattice": um_per_unit_from_lattice(table.obs, centers),
        }
    )
    _add_um(sdata, name, scale.um_per_px)
    return sdata


def _add_um(sdata: "SpatialData", name: str, um_per_unit: float) -> None:
    """Add the coordinate system "um" to spots and images, from µm per unit of the spots."""
    from spatialdata.transformations import Scale, Sequence, set_transformation

    to_um = Scale([um_per_unit, um_per_unit], axes=("x", "y"))
    of_spots = coordinate_systems(sdata.shapes[name])
    set_transformation(sdata.shapes[name], to_um, "um")
    for image in sdata.images.values():
        of_image = coordinate_systems(image)
        system = next((system for system in of_image if system in of_spots), None)
        if system is not None:
            steps = [of_image[system], of_spots[system].inverse(), to_um]
            set_transformation(image, Sequence(steps), "um")
