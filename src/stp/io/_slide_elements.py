"""The elements of a slide in memory: a table, its spots and its image, in pixels and in µm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.levels import Level
from stp.images.regions import annotate_shapes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

CHUNK_PIXELS = 512  # side of the chunks of an image in memory


@dataclass(frozen=True)
class SlideImage:
    """The image of a slide.

    Parameters
    ----------
    name
        Name of the slide; the image is called `f"{name}_full_image"`.
    levels
        Resolutions of the image, finest first; none for a slide without an image.
    um_per_px
        µm per pixel of the coordinate system "global", which is the finest level.
    """

    name: str
    levels: tuple[Level, ...]
    um_per_px: float


def assemble_slide(
    adata: "AnnData", centers: np.ndarray, radius: float, image: SlideImage
) -> "SpatialData":
    """Return a SpatialData of a table, its spots and its image; all distances are pixels."""
    import spatialdata
    from spatialdata.models import ShapesModel

    shapes = ShapesModel.parse(
        centers, geometry=0, radius=radius, transformations=_systems(image.um_per_px)
    )
    return spatialdata.SpatialData(
        images=image_elements(image),
        shapes={image.name: shapes},
        tables={"table": annotate_shapes(adata, image.name)},
    )


def image_elements(image: SlideImage) -> dict[str, Any]:
    """Return the image as an element of SpatialData by its name, or nothing if there is none."""
    if not image.levels:
        return {}
    return {f"{image.name}_full_image": _image_element(image.levels, _systems(image.um_per_px))}


def _systems(um_per_px: float) -> dict[str, Any]:
    """Return the coordinate systems of a slide, made anew for each element."""
    from spatialdata.transformations import Identity, Scale

    return {"global": Identity(), "um": Scale([um_per_px, um_per_px], axes=("x", "y"))}


def _image_element(levels: tuple[Level, ...], systems: Mapping[str, Any]) -> Any:
    """Return an image of one level, or a multiscale image of several."""
    from spatialdata.transformations import set_transformation
    from xarray import DataTree

    arrays = [_image_array(level) for level in levels]
    image = arrays[0]
    if len(arrays) > 1:
        scales = {}
        for index, array in enumerate(arrays):
            if index:
                _set_pixel_centers(array, arrays[0])
            scales[f"scale{index}"] = array.to_dataset(name="image")
        image = DataTree.from_dict(scales)
    set_transformation(image, dict(systems), set_all=True)
    return image


def _set_pixel_centers(array: Any, finest: Any) -> None:
    """Set the coordinates of a coarser level in pixels of the finest."""
    for axis in ("y", "x"):
        n_pixels = array.sizes[axis]
        array.coords[axis] = (np.arange(n_pixels) + 0.5) * finest.sizes[axis] / n_pixels


def _image_array(level: Level) -> Any:
    """Return a level as a lazy image of SpatialData."""
    import dask.array
    from spatialdata.models import Image2DModel

    array = level.array
    if not isinstance(array, dask.array.Array):
        chunks = getattr(array, "chunks", None)
        chunks = chunks or tuple(min(CHUNK_PIXELS, n) for n in array.shape)
        array = dask.array.from_array(array, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8))
    if level.channels_first:
        array = array[:3]
        dims = ("c", "y", "x")
    else:
        array = array[..., :3]
        dims = ("y", "x", "c")
    return Image2DModel.parse(array, dims=dims, c_coords=["r", "g", "b"])
