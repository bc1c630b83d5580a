"""Read the cells of a Xenium slide and the H&E image that was taken of it afterwards."""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import linear_scale
from stp.images.placement import check_spots_on_image
from stp.images.scale import resolve_scale
from stp.io._slide_image import OpenImage, image_element, open_slide_image
from stp.tables.valid_names import valid_name

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

EXPERIMENT = "experiment.xenium"
FILES = (
    EXPERIMENT,
    "cell_feature_matrix.h5",
    "cells.parquet",
    "cells.zarr.zip",
    "cell_boundaries.parquet",
)
HE_ENDING = "he_image.ome.tif"
ALIGNMENT = "alignment.csv"
TOLERANCE = 0.05  # scales that differ by more contradict each other


def read_xenium(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> "SpatialData":
    """Read the cells of a Xenium slide, with its H&E image and its scale in µm.

    spatialdata-io reads the cells: their counts, without control probes, and their boundaries.
    Transcripts, labels and stains are left out.

    Parameters
    ----------
    path
        The output folder of Xenium, with `experiment.xenium` in it.
    image
        The H&E image; by default the file `*he_image.ome.tif` of the folder, if there is one.
        Xenium Explorer writes its alignment as CSV; it lies next to the image, and
        `slide_alignment.csv` or `slidealignment.csv` belongs to `slide.tif`.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    name
        Name of the slide; by default that of the folder.

    Returns
    -------
    SpatialData whose coordinate system "global" has the pixels of Xenium, and "um". Cells are
    circles `name`, their boundaries are `f"{name}_boundaries"`, and the image is
    `f"{name}_full_image"`.

    Raises
    ------
    FileNotFoundError
        There is no folder at `path`, it lacks files, or there is no file at `image`.
    TypeError
        `image` is not a path.
    ValueError
        The files cannot be read, the image has no alignment, or it is not that of the cells.

    Examples
    --------
    >>> sdata = stp.io.read_xenium("output-XETG0001", image="he.tif")  # doctest: +SKIP
    >>> stp.tl.embed_images(sdata, model)  # doctest: +SKIP
    """
    path = Path(path)
    _require_files(path)
    if image is None:
        image = next(iter(sorted(path.glob(f"*{HE_ENDING}"))), None)
    elif not isinstance(image, str | os.PathLike):
        raise TypeError(
            "image= of read_xenium is the path of a file, whose alignment lies next to it, not "
            f"{type(image).__name__}"
        )
    full_image = open_slide_image(image)
    pixel_um = _pixel_um(path / EXPERIMENT)
    to_xenium = np.eye(3)
    if full_image is not None:
        to_xenium = _read_alignment(Path(str(image)), full_image, pixel_um, um_per_px)
    cells = _read_cells(path)
    if full_image is not None:
        _check_cells(cells["table"], full_image, np.linalg.inv(to_xenium), pixel_um)
    return _assemble(
        valid_name(name or path.resolve().name), cells, full_image, to_xenium, pixel_um
    )


def _require_files(path: Path) -> None:
    """Raise FileNotFoundError if a folder is not one of Xenium; the message names what it lacks."""
    if not path.is_dir():
        raise FileNotFoundError(f"no Xenium folder at {path}")
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        folders = sorted(file.parent.name for file in path.glob(f"*/{EXPERIMENT}"))
        remedy = f"; pass one of its folders {', '.join(folders)}" if folders else ""
        raise FileNotFoundError(f"{path} lacks {', '.join(missing)}; Xenium writes them{remedy}")


def _pixel_um(path: Path) -> float:
    """Return µm per pixel of the coordinate system of Xenium."""
    try:
        pixel_um = float(json.loads(path.read_text(encoding="utf-8"))["pixel_size"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} gives no pixel_size ({error}); is the file complete?") from error
    if not pixel_um > 0:
        raise ValueError(f"{path} gives a pixel_size of {pixel_um:g} µm, which is no scale")
    return pixel_um


def _read_alignment(
    path: Path, image: OpenImage, pixel_um: float, um_per_px: float | None
) -> np.ndarray:
    """Return the (3, 3) matrix that takes pixels of an image to pixels of Xenium.

    An image without an alignment has the pixels of Xenium, if its scale says so.

    Raises
    ------
    ValueError
        The image has no alignment, or its scale contradicts the alignment.
    """
    file = _alignment_file(path)
    to_xenium = np.eye(3)
    source = f"the pixel size in {EXPERIMENT}"
    if file is not None:
        to_xenium = _read_matrix(file)
        source = file.name
    aligned_um = linear_scale(to_xenium) * pixel_um
    sources = {"um_per_px": um_per_px, "the file's metadata": image.um_per_px}
    has_scale = any(value is not None for value in sources.values())
    if file is None and not has_scale:
        raise ValueError(
            f"no alignment of {path.name} to the cells: put {_stem(path)}_{ALIGNMENT} next to it, "
            "as Xenium Explorer writes it; if the image has the pixels of Xenium, pass "
            f"um_per_px={pixel_um:g}"
        )
    if has_scale:
        scale = resolve_scale(sources).um_per_px
        if abs(np.log(scale / aligned_um)) > np.log1p(TOLERANCE):
            raise ValueError(
                f"{path.name} has {scale:.4g} µm per pixel, but {source} gives {aligned_um:.4g}; "
                f"pass the image and {_stem(path)}_{ALIGNMENT} that belong together"
            )
    return to_xenium


def _stem(path: Path) -> str:
    """Return the name of an image without its ending; `.ome.tif` is one ending."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def _alignment_file(path: Path) -> Path | None:
    """Return the alignment that lies next to an image, or None."""
    for separator in ("", "_"):
        file = path.with_name(f"{_stem(path)}{separator}{ALIGNMENT}")
        if file.is_file():
            return file
    return None


def _read_matrix(path: Path) -> np.ndarray:
    try:
        matrix = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"{path} is no matrix of numbers: {error}") from error
    if matrix.shape != (3, 3) or not abs(np.linalg.det(matrix)) > 0:
        raise ValueError(
            f"{path} is no alignment: it must have 3 x 3 numbers and an inverse, and has "
            f"{matrix.tolist()}"
        )
    return matrix


def _read_cells(path: Path) -> "SpatialData":
    """Return table, circles and boundaries of the cells as spatialdata-io reads them."""
    import spatialdata_io

    with warnings.catch_warnings():
        # scanpy warns about repeated gene names; they become unique below.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        try:
            sdata = spatialdata_io.xenium(
                path,
                cells_as_circles=True,
                cells_labels=False,
                nucleus_boundaries=False,
                nucleus_labels=False,
                transcripts=False,
                morphology_mip=False,
                morphology_focus=False,
                aligned_images=False,
            )
        except (AssertionError, KeyError, OSError) as error:
            raise ValueError(
                f"spatialdata-io cannot read {path} ({error}); are the files complete?"
            ) from error
    sdata["table"].var_names_make_unique()
    return sdata


def _check_cells(table: "AnnData", image: OpenImage, to_image: np.ndarray, pixel_um: float) -> None:
    """Raise ValueError if less than half of the cells lie on the image; warn below 95 %."""
    in_xenium = np.asarray(table.obsm["spatial"], dtype=float)[:, :2] / pixel_um
    pixels = in_xenium @ to_image[:2, :2].T + to_image[:2, 2]
    check_spots_on_image(pixels, image.shape, image.name)


def _assemble(
    name: str,
    cells: "SpatialData",
    image: OpenImage | None,
    to_xenium: np.ndarray,
    pixel_um: float,
) -> "SpatialData":
    """Return the slide under the names that all readers give, in pixels of Xenium and in µm."""
    import spatialdata
    from spatialdata.models import TableModel
    from spatialdata.transformations import Affine, Identity, Scale, Sequence, set_transformation

    table = cells["table"]
    instance_key = table.uns.pop("spatialdata_attrs")["instance_key"]
    table.obs["region"] = name
    table.obs["region"] = table.obs["region"].astype("category")
    table = TableModel.parse(table, region=name, region_key="region", instance_key=instance_key)
    shapes = {name: cells["cell_circles"], f"{name}_boundaries": cells["cell_boundaries"]}
    for element in shapes.values():
        set_transformation(element, Identity(), "um")  # Xenium gives places of cells in µm
    images = {}
    if image is not None:
        to_global = Affine(to_xenium, input_axes=("x", "y"), output_axes=("x", "y"))
        to_um = Scale([pixel_um, pixel_um], axes=("x", "y"))
        systems: dict[str, Any] = {"global": to_global, "um": Sequence([to_global, to_um])}
        images[f"{name}_full_image"] = image_element(image, systems)
    return spatialdata.SpatialData(
        images=images, shapes=shapes, tables={"table": table}, attrs=cells.attrs
    )
