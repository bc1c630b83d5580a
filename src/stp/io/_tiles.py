"""Write the tiles of a slide and their embeddings as a store, without the slide's pixels."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._lock import lock
from stp._log import AUTOSHARDING, count, logger, silence
from stp._text import readable
from stp.images.regions import check_one_slide, list_regions, spots_in_um
from stp.images.slides import only_slide
from stp.io._slide_record import slide_record
from stp.io._store_folder import consolidate, move_into_place
from stp.io._store_path import check_free, local_path
from stp.io._tiles_elements import assemble_tiles, make_thumbnail
from stp.tables.keys import TABLE, THUMBNAIL
from stp.tables.table import get_table
from stp.tables.valid_names import make_storable, unique_names

if TYPE_CHECKING:
    from spatialdata import SpatialData

CHUNK_BYTES = 4 << 20  # of embeddings, before compression


def write_tiles(
    sdata: "SpatialData",
    path: str | Path,
    *,
    thumbnail_um: float = 8.0,
    table_key: str = "table",
    overwrite: bool = False,
) -> None:
    """Write the tiles of a slide with all embeddings as a store, without the slide's pixels.

    `spatialdata.read_zarr` reads the store. Verbs and scanpy work on its table, apart from those
    that need the pixels of the slide.

    Parameters
    ----------
    sdata
        A SpatialData of :func:`stp.io.read_wsi` with tiles, or of :func:`stp.io.read_features`.
    path
        The new store, a SpatialData zarr folder. It appears when it is complete.
    thumbnail_um
        µm per pixel of the thumbnail. A slide that is coarser keeps its pixels.
    table_key
        Name of the table in a SpatialData.
    overwrite
        Replace an existing store.

    Notes
    -----
    The store has the table as `table`, its tiles as squares, and the slide as the image
    `thumbnail`. The attribute `stp_slide` records the path, the size and the time of the last
    change of the slide; its µm per pixel and their source; the side of the tiles, `min_tissue` and
    where tissue came from. Embeddings are stored in chunks of whole rows, so that the features of a
    slide are read fast. 10,000 tiles with 1,024 features take about 40 MB.

    Raises
    ------
    FileExistsError
        There is something at `path`, and `overwrite` is False or it is no store.
    BlockingIOError
        Another process writes to `path`, and `overwrite` is False. With `overwrite` this call
        waits.
    KeyError
        There is no table: the slide was read without `tile_um`.
    ValueError
        `path` is remote, `thumbnail_um` is not positive, the SpatialData has no record of its
        slide, or its table covers several slides.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> stp.io.write_tiles(slide, "tiles.zarr", overwrite=True)
    >>> list(spatialdata.read_zarr("tiles.zarr").images)
    ['thumbnail']
    """
    if not 0 < thumbnail_um < np.inf:
        raise ValueError(f"thumbnail_um must be positive, not {thumbnail_um}")
    path = local_path(path)
    check_free(path, overwrite)
    slide_record(sdata)
    get_table(sdata, table_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path, "writing to", wait=overwrite):
        check_free(path, overwrite)
        write_tile_store(sdata, path, thumbnail_um=thumbnail_um, table_key=table_key)


def write_tile_store(
    sdata: "SpatialData", path: Path, *, thumbnail_um: float = 8.0, table_key: str = TABLE
) -> None:
    """Write a tile store in place of the store that may be at `path`; the caller has its lock."""
    store = _assemble(sdata, path, thumbnail_um, table_key)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    with silence(AUTOSHARDING):
        store.write(partial)
        chunk_by_rows(partial, store.tables[TABLE].obsm)
    move_into_place(partial, path)
    logger.info(f"Wrote {path.name}: {count(store.tables[TABLE].n_obs, 'tile')}")


def chunk_by_rows(folder: Path, obsm: Any) -> None:
    """Write the arrays of `obsm` of a store again, in chunks of whole rows."""
    import anndata
    import zarr

    group = zarr.open_group(folder, mode="r+", use_consolidated=False)[f"tables/{TABLE}/obsm"]
    for key, values in obsm.items():
        if not isinstance(values, np.ndarray) or values.size == 0:
            continue
        row_bytes = max(1, values[:1].nbytes)
        n_rows = int(np.clip(CHUNK_BYTES // row_bytes, 1, len(values)))
        chunks = (n_rows, *values.shape[1:])
        anndata.io.write_elem(group, key, values, dataset_kwargs={"chunks": chunks})
    consolidate(folder)


def _assemble(
    sdata: "SpatialData", path: Path, thumbnail_um: float, table_key: str
) -> "SpatialData":
    """Return the store in memory, with its thumbnail."""
    record = slide_record(sdata)
    table = get_table(sdata, table_key)
    centers = spots_in_um(sdata, table)
    check_one_slide(table, centers)
    images = {}
    if centers is not None and len(sdata.images):
        slide = only_slide(sdata, table)
        element = sdata.images[slide.image_key]
        images[THUMBNAIL] = make_thumbnail(slide, element, thumbnail_um)
    name = readable(path.name).removesuffix(".zarr")
    if centers is not None and len(table):
        name = list_regions(table)[0].name
    (name,) = unique_names([name], reserved=[TABLE, THUMBNAIL])
    adata = table.copy()
    make_storable(adata)
    return assemble_tiles(adata, centers, name, record, images)
