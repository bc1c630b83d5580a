"""The elements of a slide in memory: a table, its spots and its image, in pixels and in µm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.images.level_places import level_factor
from stp.images.levels import Level
from stp.images.regions import annotate_shapes
from stp.tables.keys import TABLE
from stp.tables.valid_names import unique_names

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
    is_one_of_several
        Whether other slides are in the same SpatialData. The coordinate systems then bear the name
        of the slide: `f"global-{name}"` and `f"um-{name}"`.
    """

    name: str
    levels: tuple[Level, ...]
    um_per_px: float
    is_one_of_several: bool = False

    def systems(self) -> dict[str, Any]:
        """Return the coordinate systems of the slide, made anew for each element."""
        from spatialdata.transformations import Identity, Scale

        suffix = f"-{self.name}" if self.is_one_of_several else ""
        to_um = Scale([self.um_per_px, self.um_per_px], axes=("x", "y"))
        return {f"global{suffix}": Identity(), f"um{suffix}": to_um}


@dataclass(frozen=True)
class SlideSpots:
    """The spots of a slide and their image."""

    rows: np.ndarray  # (n,) positions in the table
    centers: np.ndarray  # (n, 2) x, y in pixels of the image
    radius: float  # in pixels
    image: SlideImage


def name_slides(names: Sequence[object]) -> list[str]:
    """Return a name for each slide that SpatialData can store; a warning lists those that changed.

    No name is that of the table, or of the image of another slide.
    """
    reserved = [TABLE, *(f"{name}_full_image" for name in names)]
    new_names = unique_names(names, reserved)
    pairs = zip(names, new_names, strict=True)
    changes = [f"{old!r} to {new!r}" for old, new in pairs if str(old) != new]
    if changes:
        warn(f"names of slides that SpatialData cannot store were changed: {', '.join(changes)}")
    return new_names


def assemble_slide(
    adata: "AnnData", centers: np.ndarray, radius: float, image: SlideImage
) -> "SpatialData":
    """Return a SpatialData of a table, its spots and its image; all distances are pixels."""
    return assemble_slides(adata, [SlideSpots(np.arange(adata.n_obs), centers, radius, image)])


def assemble_slides(adata: "AnnData", slides: Sequence[SlideSpots]) -> "SpatialData":
    """Return a SpatialData of a table and its slides, each with its spots and its image.

    Parameters
    ----------
    adata
        Table of the spots of all slides, which is changed; its rows keep their order.
    slides
        The slides; each row of the table is in one of them.
    """
    import spatialdata
    from spatialdata.models import ShapesModel

    images: dict[str, Any] = {}
    shapes = {}
    regions = np.empty(adata.n_obs, dtype=object)
    for slide in slides:
        name = slide.image.name
        regions[slide.rows] = name
        images |= image_elements(slide.image)
        shapes[name] = ShapesModel.parse(
            slide.centers,
            geometry=0,
            radius=slide.radius,
            index=slide.rows,
            transformations=slide.image.systems(),
        )
    return spatialdata.SpatialData(
        images=images, shapes=shapes, tables={TABLE: annotate_shapes(adata, list(regions))}
    )


def image_elements(image: SlideImage) -> dict[str, Any]:
    """Return the image as an element of SpatialData by its name, or nothing if there is none."""
    if not image.levels:
        return {}
    return {f"{image.name}_full_image": _image_element(image.levels, image.systems())}


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
                _set_pixel_centers(array, levels[0], levels[index])
            scales[f"scale{index}"] = array.to_dataset(name="image")
        image = DataTree.from_dict(scales)
    set_transformation(image, dict(systems), set_all=True)
    return image


def _set_pixel_centers(array: Any, finest: Level, level: Level) -> None:
    """Set the coordinates of a coarser level in pixels of the finest."""
    factors = level_factor(finest, level)
    for axis, corner, factor in zip("xy", level.origin, factors, strict=True):
        array.coords[axis] = corner + (np.arange(array.sizes[axis]) + 0.5) * factor


def _image_array(level: Level) -> Any:
    """Return a level as a lazy image of SpatialData."""
    import dask.array
    from spatialdata.models import Image2DModel

    array = level.array
    if not isinstance(array, dask.array.Array):
        chunks = getattr(array, "chunks", None)
        chunks = chunks or tuple(min(CHUNK_PIXELS, n) for n in array.shape)
        array = dask.array.from_array(array, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8))
    dims = ("c", "y", "x") if level.channels_first else ("y", "x", "c")
    return Image2DModel.parse(array, dims=dims, c_coords=["r", "g", "b"])
