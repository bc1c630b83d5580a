"""Write the two image levels of a store: shard by shard, from a stream of the slide, going on where it was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from stp.data.store import level_paths
from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid, PatchWindow

SHARD = 3  # chunks along the side of a shard of the coarser level, and as many pixels as `region_scale` in the finer
MARGIN = 4  # pixels around what is resampled, so that no border shows


def shape_at(pyramid: ImagePyramid, um_per_px: float, region_scale: int) -> tuple[int, int]:
    """Return height and width of the finer level: they hold the whole slide, and the region scale divides them."""
    factor = um_per_px / pyramid.um_per_px * region_scale
    height, width = (int(np.ceil(n / factor)) * region_scale for n in pyramid.levels[0].shape)
    return height, width


def empty_image(shape: tuple[int, int], um_per_px: float, region_scale: int) -> Any:
    """Make an image element of two levels without pixels, for SpatialData to write its metadata."""
    import dask.array
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import set_transformation
    from spatialdata.transformations.transformations import Scale
    from xarray import DataTree

    levels = {}
    for index, scale in enumerate((1, region_scale)):
        pixels = dask.array.zeros(
            (3, *(n // scale for n in shape)), dtype=np.uint8, chunks=(3, 4096, 4096)
        )
        level = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
        level = level.assign_coords({axis: level.coords[axis] * scale for axis in ("y", "x")})
        levels[f"scale{index}"] = level.to_dataset(name="image")
    image = DataTree.from_dict(levels)
    set_transformation(image, {"um": Scale([um_per_px, um_per_px], axes=("x", "y"))}, set_all=True)
    return image


def make_arrays(image: Any, chunk: int, region_scale: int) -> None:
    """Put small chunks in large shards where SpatialData wrote the metadata of arrays, which hold nothing yet."""
    for path, scale in zip(level_paths(image), (region_scale, 1), strict=True):
        old = image[path]
        chunks = tuple(min(chunk, n) for n in old.shape[1:])
        shards = tuple(SHARD * scale * chunk if size == chunk else size for size in chunks)
        image.create_array(
            path,
            shape=old.shape,
            dtype=old.dtype,
            chunks=(3, *chunks),
            shards=(3, *shards),
            dimension_names=old.metadata.dimension_names,
            overwrite=True,
        )


def fill(
    image: Any, folder: Path, slide: ImagePyramid, um_per_px: float, chunk: int, region_scale: int
) -> None:
    """Write what is missing of both levels; a shard of the coarser level appears when that of the finer is whole."""
    import zarr

    with zarr.config.set(
        {"array.write_empty_chunks": True}
    ):  # a black shard that was left out would seem missing
        fine, coarse = (image[path] for path in level_paths(image))
    side = SHARD * chunk * region_scale
    height, width = fine.shape[1:]
    corners = np.stack(np.meshgrid(range(0, width, side), range(0, height, side)), axis=-1).reshape(
        -1, 2
    )
    done = [
        (folder / coarse.path / coarse.metadata.encode_chunk_key((0, y, x))).exists()
        for x, y in corners // side
    ]
    corners = corners[~np.array(done)]
    factor = um_per_px / slide.um_per_px
    source = replace(slide, levels=with_gaps(slide.levels), affine=np.eye(3))
    window = PatchWindow(side + 2 * MARGIN, um_per_px)
    tiles = source.stream((corners + side / 2) * factor, window, batch_size=1)
    for (row,), (tile,) in tqdm(
        tiles, total=len(corners), desc="write image", unit="shard", disable=None
    ):
        x, y = corners[row]
        tile = tile[MARGIN:-MARGIN, MARGIN:-MARGIN][: height - y, : width - x]
        fine[:, y : y + side, x : x + side] = np.moveaxis(tile, -1, 0)
        x, y = corners[row] // region_scale
        small = np.moveaxis(averaged(tile, region_scale), -1, 0)
        coarse[:, y : y + small.shape[1], x : x + small.shape[2]] = small


def averaged(tile: np.ndarray, factor: int) -> np.ndarray:
    """Average squares of `factor` pixels, rounded to the nearest value."""
    height, width = (n // factor for n in tile.shape[:2])
    squares = tile.reshape(height, factor, width, factor, 3).sum(axis=(1, 3), dtype=np.uint32)
    return ((squares + factor * factor // 2) // (factor * factor)).astype(np.uint8)
