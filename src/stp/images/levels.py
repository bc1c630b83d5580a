"""One resolution of an image: an RGB array, in memory or on disk, that is read window by window."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stp.images.files.arrays import FileArray
from stp.images.files.channel_names import conversion_by_names
from stp.images.files.colors import ColorConversion, RgbArray, convert_colors
from stp.images.whole_array import keep_whole


@dataclass(frozen=True)
class Level:
    """An RGB uint8 array (numpy, zarr, dask or a file).

    Parameters
    ----------
    array
        Pixels, y x c or c y x.
    channels_first
        Whether the order is c y x.
    origin
        Corner of the level as x, y in pixels of the finest level.
    factor
        Size of a pixel as x, y in pixels of the finest level; None if it follows from the sizes of
        both levels.
    allows_gaps
        Read chunks that are missing on disk as black pixels, instead of raising an error.
    """

    array: Any
    channels_first: bool = False
    origin: tuple[float, float] = (0.0, 0.0)
    factor: tuple[float, float] | None = None
    allows_gaps: bool = False

    def __post_init__(self) -> None:
        array = self.array
        channels = array.shape[0 if self.channels_first else -1]
        if array.ndim != 3 or channels not in (3, 4):
            raise ValueError(f"expected an RGB image, got an array of shape {tuple(array.shape)}")
        if array.dtype != np.uint8:
            raise ValueError(
                f"expected 8 bits per channel, got {array.dtype}; convert the image to uint8 first"
            )
        if channels != 3:
            raise ValueError("the image has a fourth channel; open it with open_array")
        if 0 in array.shape:
            raise ValueError(f"the image has no pixels: its shape is {tuple(array.shape)}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        y_axis, x_axis = self._axes
        return self.array.shape[y_axis], self.array.shape[x_axis]

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels at which chunks begin, and at which the last one ends: along y and along x."""
        chunks = getattr(self.array, "chunks", None) or self.array.shape
        y_axis, x_axis = self._axes
        along_y = _chunk_edges(chunks[y_axis], self.array.shape[y_axis])
        along_x = _chunk_edges(chunks[x_axis], self.array.shape[x_axis])
        return along_y, along_x

    @property
    def _axes(self) -> tuple[int, int]:
        """Numbers of the axes y and x."""
        return (1, 2) if self.channels_first else (0, 1)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a window that lies inside the level: (bottom - top, right - left, 3) uint8."""
        if self.channels_first:
            return np.moveaxis(np.asarray(self.array[:3, top:bottom, left:right]), 0, -1)
        return np.asarray(self.array[top:bottom, left:right, :3])

    def is_empty(self, pixels: np.ndarray) -> bool:
        """Return whether pixels (..., 3) are those of a chunk that is missing on disk."""
        if isinstance(self.array, RgbArray):
            return bool((pixels == self.array.empty_color).all())
        return not pixels.any()

    def is_missing(self, row: int, column: int) -> bool:
        """Return whether a chunk that must be on disk is not there: zarr reads zeros for it."""
        import zarr
        from zarr.core.sync import sync

        array = self.array.source if isinstance(self.array, RgbArray) else self.array
        if self.allows_gaps or not isinstance(array, zarr.Array) or array.fill_value:
            return False
        stored_shape = array.shards or array.chunks
        y_axis, x_axis = self._axes
        channel_axis = 3 - y_axis - x_axis
        y = int(self.edges[0][row]) // stored_shape[y_axis]
        x = int(self.edges[1][column]) // stored_shape[x_axis]
        for part in range(-(-array.shape[channel_axis] // stored_shape[channel_axis])):
            place = (part, y, x) if self.channels_first else (y, x, part)
            key = array.metadata.encode_chunk_key(place)
            if sync((array.store_path / key).exists()):
                return False
        return True


def _chunk_edges(chunks: int | tuple[int, ...], length: int) -> np.ndarray:
    """Return the edges of chunks, given as one size (zarr) or as all sizes (dask)."""
    sizes = chunks if isinstance(chunks, tuple) else [chunks] * -(-length // chunks)
    return np.minimum(np.concatenate([[0], np.cumsum(sizes)]), length)


def with_gaps(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return levels in which missing chunks are black, to read a whole slide with empty parts."""
    return tuple(replace(level, allows_gaps=True) for level in levels)


def open_array(array: Any) -> Level:
    """Return the level of an array; the axis of 3 or 4 channels tells y x c from c y x.

    A fourth channel is alpha. An array with named channels is read by their names.
    """
    if set(getattr(array, "dims", ())) == {"c", "y", "x"}:
        return _open_xarray(array, "the image")
    channels_last = array.ndim == 3 and array.shape[-1] in (3, 4)
    channels_first = not channels_last and array.ndim == 3 and array.shape[0] in (3, 4)
    has_alpha = channels_last and array.shape[-1] == 4 or channels_first and array.shape[0] == 4
    if has_alpha and array.dtype == np.uint8:
        array = convert_colors(array, ColorConversion(alpha=3), channels_first)
    return Level(array, channels_first=channels_first)


def open_element(element: Any, image_key: str | None = None) -> tuple[Level, ...]:
    """Return the levels of a SpatialData image, single or multiscale, the finest first.

    Parameters
    ----------
    element
        Image of a SpatialData.
    image_key
        Name of the image, for errors.

    Raises
    ------
    ValueError
        The channels have other names than red, green and blue, or no 8 bits.
    """
    owner = "the image" if image_key is None else f"image {image_key!r}"
    if not hasattr(element, "children"):
        return (_open_xarray(element, owner),)
    arrays = [next(iter(element[name].data_vars.values())) for name in element.children]
    return tuple(_open_xarray(array, owner) for array in arrays)


def _open_xarray(array: Any, owner: str) -> Level:
    array = array.transpose("c", "y", "x")
    names = array.coords["c"].to_numpy() if "c" in array.coords else range(array.sizes["c"])
    source = _find_source(array.data)
    pixels, channels_first = (keep_whole(array.data), True) if source is None else source
    conversion = conversion_by_names(list(names), owner)
    if array.dtype == np.uint8:
        pixels = convert_colors(pixels, conversion, channels_first)
    return Level(pixels, channels_first=channels_first)


def _find_source(array: Any) -> tuple[Any, bool] | None:
    """Return the array in a file of which a dask array (c, y, x) is a plain view, or None.

    An array in a file pickles as its path, and is faster to read than the dask array. The second
    value is whether its axes are c, y, x too, and not y, x, c.
    """
    import zarr

    layers = getattr(getattr(array, "dask", None), "layers", {})
    name = getattr(array, "name", "")
    channels_first = True
    shape = tuple(getattr(array, "shape", ()))
    if len(layers) == 3 and _moves_channels_first(layers.get(name)):
        ((name, _),) = layers[name].indices
        channels_first = False
        shape = (*shape[1:], shape[0])
    elif len(layers) != 2:
        return None
    # dask.array.from_array names the layer that holds its source so, and computes nothing.
    name = f"original-{name}"
    source: Any = dict(layers.get(name, {})).get(name)
    is_in_file = isinstance(source, zarr.Array | FileArray | RgbArray)
    return (source, channels_first) if is_in_file and source.shape == shape else None


def _moves_channels_first(layer: Any) -> bool:
    """Return whether a layer of dask turns the axes y, x, c of one array into c, y, x."""
    task = getattr(layer, "task", None)
    if getattr(task, "func", None) is not np.transpose or len(layer.indices) != 1:
        return False
    _, axes = layer.indices[0]
    return axes is not None and layer.output_indices == (axes[2], axes[0], axes[1])
