"""One resolution of a picture: an RGB array read window by window, whatever file or memory it stands in."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

LOOK = 32  # pixels per side of the windows in which levels are compared


@dataclass(frozen=True)
class Level:
    """An RGB or RGBA uint8 array (numpy, zarr, dask or a file), y x c or c y x.

    `origin` is where its corner lies, as x, y in pixels of the finest level; with `gaps`, missing chunks are black.
    """

    array: Any
    channels_first: bool = False
    origin: tuple[float, float] = (0.0, 0.0)
    gaps: bool = False

    def __post_init__(self) -> None:
        array, channels = self.array, self.array.shape[0 if self.channels_first else -1]
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
        return tuple(self.array.shape[1:] if self.channels_first else self.array.shape[:2])

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Where chunks begin, and where the last one ends: along y and along x."""
        chunks = getattr(self.array, "chunks", None) or self.array.shape
        along_y, along_x = (_edges(chunks[axis], self.array.shape[axis]) for axis in self._axes)
        return along_y, along_x

    @property
    def _axes(self) -> tuple[int, int]:
        return (1, 2) if self.channels_first else (0, 1)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a window that lies inside the level: (bottom - top, right - left, 3) uint8."""
        if self.channels_first:
            return np.moveaxis(np.asarray(self.array[:3, top:bottom, left:right]), 0, -1)
        return np.asarray(self.array[top:bottom, left:right, :3])

    def lacks(self, row: int, column: int) -> bool:
        """Tell whether a chunk is missing on disk, where there may be no gaps: zarr gives zeros for one."""
        import zarr
        from zarr.core.sync import sync

        array = self.array
        if self.gaps or not isinstance(array, zarr.Array) or array.fill_value:
            return False
        stored, of_channels = array.shards or array.chunks, 3 - sum(self._axes)
        at = zip(self.edges, (row, column), self._axes, strict=True)
        y, x = (int(edges[index]) // stored[axis] for edges, index, axis in at)
        parts = range(-(-array.shape[of_channels] // stored[of_channels]))
        places = [(part, y, x) if self.channels_first else (y, x, part) for part in parts]
        keys = map(array.metadata.encode_chunk_key, places)
        return not any(sync((array.store_path / key).exists()) for key in keys)


def with_gaps(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return levels that are black where a chunk is missing: to read a slide whole, also where no spot lies."""
    return tuple(replace(level, gaps=True) for level in levels)


def open_array(array: Any) -> Level:
    """Wrap an array, telling y x c from c y x by where the three or four channels stand."""
    last = array.ndim == 3 and array.shape[-1] in (3, 4)
    return Level(array, channels_first=not last and array.ndim == 3 and array.shape[0] in (3, 4))


def factor_between(full: int, reduced: int) -> float:
    """Return the factor between two levels: the whole number that explains both heights, trimmed or padded."""
    whole = round(full / reduced)
    return float(whole) if reduced in (full // whole, -(-full // whole)) else full / reduced


def placed(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Find where coarser levels begin: what is left over when sides are divided is dropped at either end.

    spatialdata drops the first pixels, the makers of TIFFs the last; which of them is seen where both levels are
    read.
    """
    found = [levels[0]]
    at_start = None
    for level in levels[1:]:
        finer = found[-1]
        factor = factor_between(finer.shape[0], level.shape[0])
        rest = np.array(finer.shape[::-1]) - factor * np.array(level.shape[::-1])
        if factor % 1 or (rest < 0).any() or not rest.any():
            found.append(replace(level, origin=finer.origin))
            continue
        if at_start is None:
            at_start = _drops_first(finer, level, int(factor), rest.astype(int))
        shift = at_start * rest * factor_between(levels[0].shape[0], finer.shape[0])
        x, y = finer.origin + shift
        found.append(replace(level, origin=(float(x), float(y))))
    return tuple(found)


def _drops_first(fine: Level, coarse: Level, factor: int, rest: np.ndarray) -> bool:
    """Tell whether the coarse level is the mean of the fine one from its first pixels on, or from `rest` on."""
    size = min(LOOK, *coarse.shape)
    differences = np.zeros(2)
    for y in np.linspace(0, coarse.shape[0] - size, 3).astype(int):
        for x in np.linspace(0, coarse.shape[1] - size, 3).astype(int):
            seen = coarse.read(y, y + size, x, x + size)
            for index, (dx, dy) in enumerate(((0, 0), tuple(rest))):
                top, left = y * factor + dy, x * factor + dx
                block = fine.read(top, top + size * factor, left, left + size * factor).astype(
                    np.float32
                )
                mean = block.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
                differences[index] += np.abs(mean - seen).sum()
    return bool(differences[1] < differences[0])


def _edges(chunks: Any, length: int) -> np.ndarray:
    """Return the borders of chunks, given as one size (zarr) or as all sizes (dask)."""
    sizes = chunks if isinstance(chunks, tuple) else [chunks] * -(-length // chunks)
    return np.minimum(np.concatenate([[0], np.cumsum(sizes)]), length)


def element_levels(element: Any) -> tuple[Level, ...]:
    """Return the levels of a SpatialData image, single or multiscale."""
    if not hasattr(element, "children"):
        return (_element_level(element),)
    return placed(
        tuple(
            _element_level(next(iter(element[name].data_vars.values())))
            for name in element.children
        )
    )


def _element_level(array: Any) -> Level:
    return Level(_stored(array.transpose("c", "y", "x").data), channels_first=True)


def _stored(array: Any) -> Any:
    """Return the zarr array that a dask array reads as it is: it pickles as a path, and is read faster than dask."""
    import zarr

    layers = getattr(getattr(array, "dask", None), "layers", {})
    source = (
        dict(layers.get(f"original-{array.name}", {})).get(f"original-{array.name}")
        if len(layers) == 2
        else None
    )
    return source if isinstance(source, zarr.Array) and source.shape == array.shape else array
