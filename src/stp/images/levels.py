"""One resolution of an image: an RGB array, in memory or on disk, that is read window by window."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COMPARED_PIXELS = 32  # side of the windows in which two levels are compared


@dataclass(frozen=True)
class Level:
    """An RGB or RGBA uint8 array (numpy, zarr, dask or a file).

    Parameters
    ----------
    array
        Pixels, y x c or c y x.
    channels_first
        Whether the order is c y x.
    origin
        Corner of the level as x, y in pixels of the finest level.
    allows_gaps
        Read chunks that are missing on disk as black pixels, instead of raising an error.
    """

    array: Any
    channels_first: bool = False
    origin: tuple[float, float] = (0.0, 0.0)
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

    def is_missing(self, row: int, column: int) -> bool:
        """Return whether a chunk that must be on disk is not there: zarr reads zeros for it."""
        import zarr
        from zarr.core.sync import sync

        array = self.array
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
    """Return the level of an array; the axis of 3 or 4 channels tells y x c from c y x."""
    channels_last = array.ndim == 3 and array.shape[-1] in (3, 4)
    channels_first = not channels_last and array.ndim == 3 and array.shape[0] in (3, 4)
    return Level(array, channels_first=channels_first)


def open_element(element: Any) -> tuple[Level, ...]:
    """Return the levels of a SpatialData image, single or multiscale, the finest first."""
    if not hasattr(element, "children"):
        return (_open_xarray(element),)
    arrays = [next(iter(element[name].data_vars.values())) for name in element.children]
    return place_levels(tuple(_open_xarray(array) for array in arrays))


def _open_xarray(array: Any) -> Level:
    pixels = array.transpose("c", "y", "x").data
    source = _find_zarr_array(pixels)
    return Level(pixels if source is None else source, channels_first=True)


def _find_zarr_array(array: Any) -> Any:
    """Return the zarr array of which a dask array is a plain view, or None if there is none.

    A zarr array pickles as its path, and is faster to read than the dask array.
    """
    import zarr

    layers = getattr(getattr(array, "dask", None), "layers", {})
    if len(layers) != 2:
        return None
    # dask.array.from_zarr names the layer that holds its source so, and computes nothing.
    name = f"original-{array.name}"
    source = dict(layers.get(name, {})).get(name)
    return source if isinstance(source, zarr.Array) and source.shape == array.shape else None


def factor_between(full: int, reduced: int) -> float:
    """Return how many pixels of one level make a pixel of a coarser one, from their heights.

    It is a whole number if that explains both heights, with the last pixels cut off or padded.
    """
    factor = round(full / reduced)
    explains_heights = reduced in (full // factor, -(-full // factor))
    return float(factor) if explains_heights else full / reduced


def place_levels(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return the levels, finest first, each with the corner at which it begins.

    If the factor does not divide a side, a coarser level lacks the pixels that remain: spatialdata
    drops the first pixels, the makers of TIFFs the last. Comparing two levels shows which.
    """
    result = [levels[0]]
    drops_first = None
    for level in levels[1:]:
        finer = result[-1]
        factor = factor_between(finer.shape[0], level.shape[0])
        remainder = np.array(finer.shape[::-1]) - factor * np.array(level.shape[::-1])
        if factor % 1 or (remainder < 0).any() or not remainder.any():
            result.append(replace(level, origin=finer.origin))
            continue
        if drops_first is None:
            drops_first = _drops_first(finer, level, int(factor), remainder.astype(int))
        shift = drops_first * remainder * factor_between(levels[0].shape[0], finer.shape[0])
        x, y = finer.origin + shift
        result.append(replace(level, origin=(float(x), float(y))))
    return tuple(result)


def _drops_first(fine: Level, coarse: Level, factor: int, remainder: np.ndarray) -> bool:
    """Return whether the coarse level lacks the first pixels of the fine one, not the last.

    `remainder` is the number of pixels that it lacks, as x, y.
    """
    size = min(COMPARED_PIXELS, *coarse.shape)
    corners = ((0, 0), tuple(remainder))  # as x, y: of a level that lacks the last, the first
    differences = np.zeros(2)
    for y in np.linspace(0, coarse.shape[0] - size, 3).astype(int):
        for x in np.linspace(0, coarse.shape[1] - size, 3).astype(int):
            expected = coarse.read(y, y + size, x, x + size)
            for index, (dx, dy) in enumerate(corners):
                top = y * factor + dy
                left = x * factor + dx
                block = fine.read(top, top + size * factor, left, left + size * factor)
                squares = block.astype(np.float32).reshape(size, factor, size, factor, 3)
                differences[index] += np.abs(squares.mean(axis=(1, 3)) - expected).sum()
    return bool(differences[1] < differences[0])
