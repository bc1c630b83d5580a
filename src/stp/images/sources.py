"""Images in memory, in any form that users pass: arrays, PIL images and xarray."""

from typing import Any

import numpy as np

from stp.images.level_places import place_levels
from stp.images.levels import Level, open_array

ACCEPTED = (
    "the path of a file, a NumPy, Zarr or Dask array, a PIL image, or an xarray DataArray or "
    "DataTree such as an image of a SpatialData"
)
AXIS_NAMES = {
    "y": ("y", "row", "rows", "height"),
    "x": ("x", "column", "columns", "col", "width"),
    "c": ("c", "channel", "channels", "band", "s"),
}
GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def open_pixels(image: Any, argument: str = "image") -> tuple[Level, ...]:
    """Return the levels of an image in memory, the finest first.

    Parameters
    ----------
    image
        NumPy, Zarr or Dask array (y, x, c) or (c, y, x); PIL image; xarray DataArray or DataTree.
    argument
        Name of the caller's argument in errors.

    Raises
    ------
    TypeError
        The image is of another type.
    ValueError
        The image is not 8-bit RGB, or its axes can be read in two ways.
    """
    import dask.array
    import PIL.Image
    import xarray
    import zarr

    if isinstance(image, np.ndarray | dask.array.Array | zarr.Array):
        _check_axes(image.shape, argument)
        return (open_array(image),)
    if isinstance(image, PIL.Image.Image):
        return (open_array(_read_pil(image, argument)),)
    if isinstance(image, xarray.DataArray):
        return (_open_data_array(image, argument),)
    if isinstance(image, xarray.DataTree) and image.children:
        arrays = [next(iter(level.data_vars.values())) for level in image.children.values()]
        return place_levels(tuple(_open_data_array(array, argument) for array in arrays))
    raise TypeError(f"{argument}= accepts {ACCEPTED}, not {_type_name(image)}")


def _type_name(image: Any) -> str:
    """Return the name of a type with its package, such as torch.Tensor."""
    module = type(image).__module__.partition(".")[0]
    name = type(image).__name__
    return name if module == "builtins" else f"{module}.{name}"


def _check_axes(shape: tuple[int, ...], argument: str) -> None:
    """Raise ValueError if both the first and the last axis can be the channels."""
    if len(shape) == 3 and shape[0] in (3, 4) and shape[2] in (3, 4):
        raise ValueError(
            f"{argument}= has the shape {tuple(shape)}, which can be (y, x, c) or (c, y, x); pass "
            'xarray.DataArray(array, dims=("y", "x", "c")) with the names of its axes'
        )


def _read_pil(image: Any, argument: str) -> np.ndarray:
    """Return the pixels (y, x, 3) of a PIL image; transparent pixels are white."""
    import PIL.Image

    if image.mode in GRAY_MODES:
        raise ValueError(
            f"expected an RGB image, but {argument}= is a PIL image of mode {image.mode!r}, which "
            "is grayscale; pass the H&E image"
        )
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, pixels)
    return np.asarray(image.convert("RGB"))


def _open_data_array(array: Any, argument: str) -> Level:
    """Return the level of a DataArray, by the names of its axes and channels."""
    if all(str(name).startswith("dim_") for name in array.dims):  # the names that xarray gives
        _check_axes(array.shape, argument)
        return open_array(array.data)
    names: dict[Any, str] = {}
    for axis, known_names in AXIS_NAMES.items():
        names |= {name: axis for name in array.dims if str(name).lower() in known_names}
    if sorted(names.values()) != ["c", "x", "y"] or array.ndim != 3:
        raise ValueError(
            f"{argument}= has the axes {tuple(array.dims)}; name them y, x and c, and leave out "
            "all others"
        )
    array = array.rename({name: axis for name, axis in names.items() if name != axis})
    return open_array(array)
