"""Read the folder that Space Ranger writes for a Visium slide."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.images.scale import record_scale, record_source
from stp.io._slide_image import add_um
from stp.io._space_ranger import find_space_ranger_files
from stp.io._space_ranger_slide import read_slide
from stp.io._space_ranger_table import SPOT_DIAMETER
from stp.tables.valid_names import valid_name

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read_visium(
    path: str | Path,
    *,
    image: Any = None,
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
        The full-resolution image given to Space Ranger: a path or pixels, as in
        :func:`stp.io.from_anndata`. Without it there are only the hires and lowres pictures, which
        are too coarse for patches.
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
    TypeError
        `image` is neither a path nor pixels.
    ValueError
        The folder holds several samples or Visium HD, spots have no position, the image is not
        the one on which the spots were placed, or the physical scale is unknown or contradicted.

    Examples
    --------
    >>> sdata = stp.io.read_visium("slide/outs", image="slide/full_resolution.tif", name="mine")
    >>> "um" in sdata.coordinate_systems, "mine_full_image" in sdata.images
    (True, True)
    """
    import spatialdata
    from spatialdata.models import ShapesModel

    path = Path(path)
    slide = read_slide(find_space_ranger_files(path), image)
    scale = slide.scale(um_per_px)
    name = valid_name(name or path.resolve().name)
    table = slide.table(name, "spot_id")
    spots = ShapesModel.parse(
        slide.centers,
        geometry=0,
        radius=slide.factors[SPOT_DIAMETER] / 2,
        transformations=slide.spot_systems(name),
    )
    sdata = spatialdata.SpatialData(
        images=slide.images(name), shapes={name: spots}, tables={"table": table}
    )
    add_um(sdata, name, scale.um_per_px)
    if slide.full_image is not None:
        record_source(sdata, f"{name}_full_image", scale)
        if um_per_px is not None:
            record_scale(sdata, f"{name}_full_image", scale)
    return sdata
