"""Read the bins of a Visium HD slide that Space Ranger wrote."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import preview
from stp.images.scale import record_scale, record_source
from stp.io._slide_image import add_um
from stp.io._space_ranger import ARCHIVE, SpaceRangerFiles, find_sample
from stp.io._space_ranger_slide import read_slide
from stp.io._space_ranger_table import SPOT_DIAMETER
from stp.tables.valid_names import valid_name

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read_visium_hd(
    path: str | Path,
    *,
    bin_um: int = 8,
    image: Any = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> "SpatialData":
    """Read the bins of one size of a Visium HD slide, with its image and its scale in µm.

    Elements have the names that spatialdata-io gives them: the table is `square_008um`, and its
    bins are the shapes `f"{name}_square_008um"`.

    Parameters
    ----------
    path
        The `outs` folder, or the folder with `outs` or `binned_outputs` in it.
    bin_um
        Side of the bins in µm: 2, 8 or 16, or another size that the folder has.
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
        The folder is not one of Visium HD or has no bins of this size, bins have no position, the
        image is not the one on which the bins were placed, or the scale is contradicted.

    Examples
    --------
    >>> sdata = stp.io.read_visium_hd(
    ...     "sample/outs", bin_um=8, image="sample/slide.btf"
    ... )  # doctest: +SKIP
    >>> stp.tl.tokenize(sdata, model, table_key="square_008um")  # doctest: +SKIP
    """
    import spatialdata

    path = Path(path)
    slide = read_slide(_find_bins(path, bin_um), image)
    scale = slide.scale(um_per_px, pitch_um=bin_um)
    name = valid_name(name or path.resolve().name)
    table_key = _bin_name(bin_um)
    region = f"{name}_{table_key}"
    table = slide.table(region, "location_id")
    bins = _squares(slide.centers, slide.factors[SPOT_DIAMETER], slide.spot_systems(name))
    sdata = spatialdata.SpatialData(
        images=slide.images(name), shapes={region: bins}, tables={table_key: table}
    )
    add_um(sdata, region, scale.um_per_px)
    if slide.full_image is not None:
        record_source(sdata, f"{name}_full_image", scale)
        if um_per_px is not None:
            record_scale(sdata, f"{name}_full_image", scale)
    return sdata


def _bin_name(bin_um: int) -> str:
    return f"square_{bin_um:03}um"


def _find_bins(path: Path, bin_um: int) -> SpaceRangerFiles:
    """Return the files of the bins of one size.

    Raises
    ------
    FileNotFoundError
        There is no folder at `path`, or the folder of the bins lacks files.
    ValueError
        `path` is not a folder of Visium HD, or it has no bins of this size.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no Space Ranger folder at {path}")
    folders = _bin_folders(path)
    if not folders:
        archives = [file.name for file in path.iterdir() if re.fullmatch(ARCHIVE, file.name)]
        remedy = "read a Visium slide with stp.io.read_visium(path)"
        if archives:
            remedy = f"unpack {preview(archives)} first"
        raise ValueError(
            f"{path} is no folder of Visium HD: it has no binned_outputs/square_*um; {remedy}"
        )
    if _bin_name(bin_um) not in folders:
        sizes = [int(name[len("square_") : -len("um")]) for name in folders]
        raise ValueError(f"{path} has no bins of {bin_um} µm; pass bin_um= one of {sorted(sizes)}")
    return find_sample(folders[_bin_name(bin_um)])


def _bin_folders(path: Path) -> dict[str, Path]:
    """Return the folders of the bins by name; `path` may be one of them."""
    places = [path, path / "binned_outputs", path / "outs", path / "outs" / "binned_outputs"]
    entries = [entry for place in places if place.is_dir() for entry in sorted(place.iterdir())]
    candidates = [path.resolve(), *entries]
    return {
        folder.name: folder
        for folder in candidates
        if folder.is_dir() and re.fullmatch(r"square_\d{3}um", folder.name)
    }


def _squares(centers: np.ndarray, side: float, systems: dict[str, Any]) -> Any:
    """Return squares around the centers as shapes of SpatialData; all lengths are pixels."""
    from spatialdata.models import ShapesModel

    circles = ShapesModel.parse(centers, geometry=0, radius=side / 2)
    squares = circles.geometry.buffer(side / 2, cap_style="square").to_frame("geometry")
    return ShapesModel.parse(squares, transformations=systems)
