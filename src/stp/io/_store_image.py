"""The two image levels of a store, written shard by shard from a stream of the slide."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._progress import track
from stp.data.store import level_paths
from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid, PatchWindow

if TYPE_CHECKING:
    import zarr

# Chunks along the side of a shard of the coarser level. A shard of the finer level has
# `region_scale` times as many, so that both show the same part of the slide.
SHARD_CHUNKS = 3
MARGIN_PIXELS = 4  # around what is resampled, so that no border shows


@dataclass(frozen=True)
class StoreLevels:
    """Scales of the two image levels of a store.

    Parameters
    ----------
    um_per_px
        µm per pixel of the finer level, from which patches are cut.
    region_scale
        Factor to the coarser level, from which regions are cut.
    chunk_pixels
        Side of the chunks in pixels; with small chunks a patch lies on few pixels more than its
        own.
    """

    um_per_px: float
    region_scale: int
    chunk_pixels: int = 256

    def __post_init__(self) -> None:
        if self.region_scale < 2 or not self.um_per_px > 0:
            raise ValueError(
                "region_scale must be 2 or more, patch_um_per_px positive: "
                f"{self.region_scale}, {self.um_per_px}"
            )

    @property
    def shard_pixels(self) -> int:
        """Side of a shard of the finer level."""
        return SHARD_CHUNKS * self.chunk_pixels * self.region_scale


def empty_image(levels: StoreLevels) -> Any:
    """Return an image element of two levels of few pixels, for SpatialData to write.

    Its metadata are those of the image of the store, whose arrays `make_arrays` makes.
    """
    import dask.array
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale, set_transformation
    from xarray import DataTree

    scales = {}
    for index, factor in enumerate((1, levels.region_scale)):
        side = levels.region_scale // factor
        pixels = dask.array.zeros((3, side, side), dtype=np.uint8)
        level = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
        level = level.assign_coords({axis: level.coords[axis] * factor for axis in ("y", "x")})
        scales[f"scale{index}"] = level.to_dataset(name="image")
    image = DataTree.from_dict(scales)
    to_um = Scale([levels.um_per_px, levels.um_per_px], axes=("x", "y"))
    set_transformation(image, {"um": to_um}, set_all=True)
    return image


def _finer_shape(slide: ImagePyramid, levels: StoreLevels) -> tuple[int, int]:
    """Return height and width of the finer level.

    It covers the whole slide, and `region_scale` divides its sides.
    """
    factor = levels.um_per_px / slide.um_per_px * levels.region_scale
    height, width = (int(np.ceil(n / factor)) for n in slide.levels[0].shape)
    return height * levels.region_scale, width * levels.region_scale


def make_arrays(image: "zarr.Group", slide: ImagePyramid, levels: StoreLevels) -> None:
    """Make arrays with small chunks in large shards in place of the small ones of SpatialData."""
    chunk = levels.chunk_pixels
    finer_shape = _finer_shape(slide, levels)
    for path, factor in zip(level_paths(image), (levels.region_scale, 1), strict=True):
        old = image[path]
        shape = tuple(n * factor // levels.region_scale for n in finer_shape)
        chunks = tuple(min(chunk, n) for n in shape)
        shards = tuple(SHARD_CHUNKS * factor * chunk if n == chunk else n for n in chunks)
        image.create_array(
            path,
            shape=(3, *shape),
            dtype=old.dtype,
            chunks=(3, *chunks),
            shards=(3, *shards),
            dimension_names=old.metadata.dimension_names,
            overwrite=True,
        )


def fill_image(
    image: "zarr.Group", folder: Path, slide: ImagePyramid, levels: StoreLevels
) -> list[str]:
    """Write the shards of both levels that are not on disk yet, and return a digest of each.

    A shard of the coarser level is written after the finer level has its part of the slide; its
    file shows that both are complete. Digests are of the pixels before compression. Shards that a
    stopped call wrote are read again for theirs.
    """
    import zarr

    # A black shard that is left out would seem to be missing.
    with zarr.config.set({"array.write_empty_chunks": True}):
        fine, coarse = (image[path] for path in level_paths(image))
    side = levels.shard_pixels
    height, width = fine.shape[1:]
    columns, rows = np.meshgrid(range(0, width, side), range(0, height, side))
    corners = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    is_written = np.array([_is_written(coarse, folder, x, y) for x, y in corners // side])
    digests = {
        int(shard): _digest_shard(*_read_shard(fine, coarse, corners[shard], levels))
        for shard in np.flatnonzero(is_written)
    }
    shards = np.flatnonzero(~is_written)
    for row, tile in _read_tiles(slide, corners[shards], levels):
        x, y = corners[shards[row]]
        tile = tile[: height - y, : width - x]
        averaged = average_squares(tile, levels.region_scale)
        _write_tile(fine, tile, x, y)
        _write_tile(coarse, averaged, x // levels.region_scale, y // levels.region_scale)
        digests[int(shards[row])] = _digest_shard(tile, averaged)
    return [digests[shard] for shard in range(len(corners))]


def _is_written(array: Any, folder: Path, x: int, y: int) -> bool:
    """Return whether a shard of an array is on disk."""
    return (folder / array.path / array.metadata.encode_chunk_key((0, y, x))).exists()


def _read_shard(
    fine: Any, coarse: Any, corner: np.ndarray, levels: StoreLevels
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a shard of both levels that is on disk, each (height, width, 3)."""
    x, y = corner
    side = levels.shard_pixels
    tile = fine[:, y : y + side, x : x + side]
    x, y, side = (n // levels.region_scale for n in (x, y, side))
    averaged = coarse[:, y : y + side, x : x + side]
    return np.moveaxis(tile, 0, -1), np.moveaxis(averaged, 0, -1)


def _digest_shard(tile: np.ndarray, averaged: np.ndarray) -> str:
    """Return the digest of the pixels of a shard of both levels."""
    sha256 = hashlib.sha256(str(tile.shape).encode())
    sha256.update(np.ascontiguousarray(tile).data)
    sha256.update(np.ascontiguousarray(averaged).data)
    return sha256.hexdigest()


def _read_tiles(
    slide: ImagePyramid, corners: np.ndarray, levels: StoreLevels
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows of corners and the pixels of the finer level from there, a shard each.

    A slide that is smaller than a shard is not filled up to one.
    """
    side = min(levels.shard_pixels, max(_finer_shape(slide, levels)))
    factor = levels.um_per_px / slide.um_per_px
    source = replace(slide, levels=with_gaps(slide.levels), affine=np.eye(3))
    batches = source.stream(
        (corners + side / 2) * factor,
        PatchWindow(side + 2 * MARGIN_PIXELS, levels.um_per_px),
        batch_size=1,
    )
    for (row,), (tile,) in track(batches, "write image", "shard", total=len(corners)):
        yield row, tile[MARGIN_PIXELS:-MARGIN_PIXELS, MARGIN_PIXELS:-MARGIN_PIXELS]


def _write_tile(array: Any, tile: np.ndarray, x: int, y: int) -> None:
    height, width = tile.shape[:2]
    array[:, y : y + height, x : x + width] = np.moveaxis(tile, -1, 0)


def average_squares(tile: np.ndarray, factor: int) -> np.ndarray:
    """Return the average of squares of `factor` pixels, rounded to the nearest value."""
    height, width = (n // factor for n in tile.shape[:2])
    # Sums of whole rows and columns are several times faster than a sum over axes.
    of_rows = np.zeros((height, width * factor, 3), np.uint32)
    for row in range(factor):
        of_rows += tile[row::factor]
    squares = np.full((height, width, 3), factor * factor // 2, np.uint32)
    for column in range(factor):
        squares += of_rows[:, column::factor]
    return (squares // (factor * factor)).astype(np.uint8)
