"""The folder of a store: it appears complete, and a stopped call is continued."""

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import AUTOSHARDING, silence
from stp.data.store_source import STORE
from stp.images.slides import Slide
from stp.io._store_digest import store_digest
from stp.io._store_image import StoreLevels, fill_image, make_arrays

if TYPE_CHECKING:
    from spatialdata import SpatialData

UNFINISHED = "stp_unfinished"  # attribute of a store whose pixels are still being written


def write_folder(
    store: "SpatialData", path: Path, slide: Slide | None, levels: StoreLevels
) -> None:
    """Write a store next to `path`, then rename it; an old store goes when the new one is complete.

    The caller has the lock of `path`.

    Parameters
    ----------
    store
        Store in memory, whose image has no pixels yet.
    path
        Folder of the store.
    slide
        Slide with the pixels of the image, or None for a store without an image.
    levels
        Scales of the image.
    """
    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    source_digest = _source_digest(store, slide, levels)
    if _unfinished_digest(partial) != source_digest:
        shutil.rmtree(partial, ignore_errors=True)
        _write_without_pixels(store, partial, slide, levels)
        zarr.open_group(partial, use_consolidated=False).attrs[UNFINISHED] = source_digest
    group = zarr.open_group(partial, use_consolidated=False)
    shard_digests = []
    if slide:
        shard_digests = fill_image(group["images/image"], partial, slide.pyramid, levels)
    digest = store_digest(store, levels if slide else None, shard_digests)
    group.attrs[STORE] = {**store.attrs[STORE], "digest": digest}
    del group.attrs[UNFINISHED]
    consolidate(partial)
    move_into_place(partial, path)


def move_into_place(partial: Path, path: Path) -> None:
    """Rename a complete store to its path; an old store there goes after that."""
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a call that was killed
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def has_traces(path: Path) -> bool:
    """Return whether a call that wrote a store was killed, or is still writing it."""
    return any(trace.exists() for trace in (*_folders(path), path.with_name(f".{path.name}.lock")))


def remove_traces(path: Path) -> None:
    """Delete what a killed call left next to a store; the caller has the lock of `path`."""
    for folder in _folders(path):
        shutil.rmtree(folder, ignore_errors=True)


def _folders(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")


def consolidate(folder: Path) -> None:
    """Collect the metadata of all elements of a store that are on disk now."""
    import zarr

    with warnings.catch_warnings():
        # SpatialData's parquet files are next to what zarr knows.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _write_without_pixels(
    store: "SpatialData", folder: Path, slide: Slide | None, levels: StoreLevels
) -> None:
    import zarr

    with silence(AUTOSHARDING):  # the image gets its shards below
        store.write(folder)
    if slide is not None:
        image = zarr.open_group(folder / "images" / "image", use_consolidated=False)
        make_arrays(image, slide.pyramid, levels)


def _source_digest(store: "SpatialData", slide: Slide | None, levels: StoreLevels) -> str:
    """Return a digest that tells whether a stopped call wrote the same slide to the same place.

    It covers counts, spots, genes, settings, and the image at a few spots.
    """
    from pandas.util import hash_pandas_object

    table = store.tables["table"]
    settings = (sorted(store.attrs.items()), levels.chunk_pixels, levels.region_scale)
    digest = hashlib.sha256(repr(settings).encode())
    for array in (table.X.data, table.X.indices, table.X.indptr, *table.obsm.values()):
        digest.update(np.ascontiguousarray(array).data)
    for frame in (table.obs, table.var):
        digest.update(repr(list(frame.dtypes.astype(str).items())).encode())
        digest.update(hash_pandas_object(frame).to_numpy().data)
    if slide:
        centers = slide.centers[:: max(1, len(slide.centers) // 4)]
        digest.update(slide.pyramid.read(centers, size=32, um_per_px=levels.um_per_px).data)
    return digest.hexdigest()


def _unfinished_digest(folder: Path) -> str | None:
    """Return the digest of the store that a stopped call left in a folder, if there is one."""
    import zarr

    try:
        group = zarr.open_group(folder, mode="r", use_consolidated=False)
    except (FileNotFoundError, ValueError):
        return None
    return group.attrs.get(UNFINISHED)
