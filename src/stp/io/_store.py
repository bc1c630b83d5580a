"""Rewrite a slide as a store made for training: counts by Ensembl id, spots in um, the image at two scales."""

import hashlib
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import logger
from stp.data.store import STORE, STORE_VERSION, names_digest
from stp.genes.vocabulary import Vocabulary
from stp.images.scale import lattice_um_per_unit
from stp.images.slides import (
    Slide,
    SlideQuery,
    annotate_shapes,
    check_one_slide,
    only_slide,
    spots_in_um,
)
from stp.io._store_image import empty_image, fill, make_arrays, shape_at
from stp.tables.counts import count_blocks
from stp.tables.table import gene_names, get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SOURCE = "stp_source"  # attribute: what a store was made from
UNFINISHED = "stp_unfinished"  # attribute of a store whose pixels are still being written
CHUNK = 256  # pixels per side: a patch touches few chunks
SPOT_RADIUS_UM = 27.5


def write_store(
    sdata: "SpatialData",
    path: str | Path,
    *,
    table_key: str = "table",
    layer: str | None = None,
    gene_ids_key: str | None = None,
    image_key: str | None = None,
    shapes_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | None = None,
    patch_um_per_px: float = 0.5,
    region_scale: int = 3,
    overwrite: bool = False,
) -> None:
    """Write one slide as a store for `stp.train`.

    Parameters
    ----------
    sdata
        A SpatialData with one slide, or an AnnData: counts without an image.
    path
        The new store, a SpatialData zarr folder; it appears whole or not at all. Where a former call was stopped,
        the image is written on from there.
    table_key, layer, gene_ids_key
        The table, the layer of raw counts (default X), the column of `var` with gene names (default `gene_ids` where it
        holds Ensembl ids, else `var_names`).
    image_key, shapes_key, coordinate_system
        Which image, spots and common coordinate system; left out, they are resolved from the table.
    um_per_px
        um per pixel of the image; left out, it is resolved and cross-checked.
    patch_um_per_px
        Scale of the finer level, at which patches are cut.
    region_scale
        The coarser level, for regions, has `patch_um_per_px * region_scale` um per pixel.
    overwrite
        Replace an existing store.

    Notes
    -----
    Genes that the human vocabulary knows are renamed to Ensembl ids, columns of one gene are summed; other genes
    keep their names. Spot centers stand in `obsm["spatial"]`, in um where the scale is known. The image is read as a
    stream, so that memory does not grow with the slide; what the store was made from stands in its attribute
    `stp_source`.

    Raises
    ------
    FileExistsError
        There is something at `path`, and `overwrite` is False or it is no store.
    ValueError
        No genes, no raw counts, several slides in one table, or an image that is too coarse.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0, overwrite=True)
    >>> list(spatialdata.read_zarr("slide.zarr").images)
    ['image']
    """
    path = Path(path)
    if region_scale < 2 or not patch_um_per_px > 0:
        raise ValueError(
            f"region_scale must be 2 or more, patch_um_per_px positive: {region_scale}, {patch_um_per_px}"
        )
    _check_free(path, overwrite)
    table = get_table(sdata, table_key)
    if not table.n_obs:
        raise ValueError("the table has no rows, so there is nothing to train on")
    if not table.n_vars:
        raise ValueError(
            "the table has no genes, so there is nothing to train on; tiles of stp.io.read_wsi are there for "
            "stp.tl.embed_images"
        )
    slide = _slide(sdata, table, SlideQuery(image_key, shapes_key, coordinate_system, um_per_px))
    if slide is None:
        centers, unit = _centers(sdata, table, um_per_px)
        image = {}
    else:
        slide.pyramid.check_scale(patch_um_per_px)
        slide.pyramid.check_chunks(slide.centers, patch_um_per_px)
        centers, unit = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px, "um"
        shape = shape_at(slide.pyramid, patch_um_per_px, region_scale)
        image = {"image": empty_image(shape, patch_um_per_px, region_scale)}
    counts = _counts(table, layer, gene_ids_key)
    store = _assemble(counts, centers, unit, image)
    store.attrs[STORE] = {
        "version": STORE_VERSION,
        "name": path.name.removesuffix(".zarr"),
        "genes": names_digest(counts.var_names),
        "unit": unit,
        "patch_um_per_px": patch_um_per_px if slide else None,
        "scale_source": slide.pyramid.scale_source if slide else None,
    }
    store.attrs[SOURCE] = _source(sdata, slide)
    _write(store, path, slide, patch_um_per_px, region_scale)
    _report(path, sdata, table)


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise FileExistsError(
            f"{path} exists and is no store, so it is not replaced; choose another path"
        )


def _slide(sdata: Any, table: "AnnData", query: SlideQuery) -> Slide | None:
    """Resolve the slide, or None where there is no image; ValueError where the table covers several."""
    if not getattr(sdata, "images", None):
        check_one_slide(table)
        return None
    return only_slide(sdata, table, query)


def _centers(
    sdata: Any, table: "AnnData", um_per_px: float | None
) -> tuple[np.ndarray | None, str]:
    """Return the spot centers where there is no image, in um where the scale is known."""
    if (centers := spots_in_um(sdata, table)) is not None:
        return centers, "um"
    if "spatial" not in table.obsm:
        return None, ""
    centers = np.asarray(table.obsm["spatial"], dtype=float)[:, :2]
    um = um_per_px or lattice_um_per_unit(table.obs, centers)
    return (centers * um, "um") if um else (centers, "")


def _source(sdata: Any, slide: Slide | None) -> dict[str, Any]:
    """Tell what a store is made from."""
    path = getattr(sdata, "path", None) or getattr(sdata, "filename", None)
    source = {"path": str(path) if path else None, "stp": version("stp-spatial")}
    if slide is None:
        return source
    place = {
        "region": slide.region,
        "image_key": slide.image_key,
        "coordinate_system": slide.coordinate_system,
    }
    pyramid = slide.pyramid
    return {
        **source,
        **place,
        "um_per_px": pyramid.um_per_px,
        "shapes": [list(map(int, one.shape)) for one in pyramid.levels],
    }


def _counts(table: "AnnData", layer: str | None, gene_ids_key: str | None) -> "AnnData":
    """Copy the table with raw counts in X and Ensembl ids as names; columns of one gene are summed."""
    import anndata
    import pandas as pd
    import scipy.sparse

    vocabulary = Vocabulary.default()
    names = gene_names(table, gene_ids_key).astype(str)
    index = vocabulary.encode(names)
    ids = np.where(index >= 0, vocabulary.gene_ids[index].astype(str), names)
    unique, column = np.unique(ids, return_inverse=True)
    to_gene = scipy.sparse.csr_matrix(
        (np.ones(len(ids), np.float32), (np.arange(len(ids)), column))
    )
    X = scipy.sparse.vstack(
        [block.astype(np.float32) @ to_gene for block in count_blocks(table, layer)], format="csr"
    )
    first = pd.Series(table.var_names.astype(str)).groupby(column).first()
    var = pd.DataFrame({"symbol": first.to_numpy()}, index=pd.Index(unique, name="gene_id"))
    return anndata.AnnData(X, obs=table.obs.copy(), var=var)


def _assemble(
    adata: "AnnData", centers: np.ndarray | None, unit: str, images: dict[str, Any]
) -> "SpatialData":
    import spatialdata
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    if centers is None:
        return spatialdata.SpatialData(tables={"table": TableModel.parse(adata)})
    adata.obsm["spatial"] = centers
    systems = {unit or "global": Identity()}
    spots = ShapesModel.parse(centers, geometry=0, radius=SPOT_RADIUS_UM, transformations=systems)
    return spatialdata.SpatialData(
        images=images, shapes={"spots": spots}, tables={"table": annotate_shapes(adata, "spots")}
    )


def _write(
    store: "SpatialData", path: Path, slide: Slide | None, um_per_px: float, region_scale: int
) -> None:
    """Write beside, then rename; an old store goes only when the new one is complete."""
    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    beside, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    job = _digest(store, slide, um_per_px, region_scale)
    if _unfinished(beside) != job:
        shutil.rmtree(beside, ignore_errors=True)
        with warnings.catch_warnings():
            # The arrays that SpatialData writes are given their shards below.
            warnings.filterwarnings("ignore", message="zarr v3 autosharding")
            store.write(beside)
        if slide:
            make_arrays(
                zarr.open_group(beside / "images" / "image", use_consolidated=False),
                CHUNK,
                region_scale,
            )
        zarr.open_group(beside, use_consolidated=False).attrs[UNFINISHED] = job
    group = zarr.open_group(beside, use_consolidated=False)
    if slide:
        fill(group["images/image"], beside, slide.pyramid, um_per_px, CHUNK, region_scale)
    del group.attrs[UNFINISHED]
    with (
        warnings.catch_warnings()
    ):  # as SpatialData does: its parquet files stand beside what zarr knows
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(beside)
    if path.exists():
        path.rename(old)
    beside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _digest(store: "SpatialData", slide: Slide | None, um_per_px: float, region_scale: int) -> str:
    """Name a store by what goes into it: counts, spots, genes, settings, and the image where some spots are."""
    from pandas.util import hash_pandas_object

    table = store.tables["table"]
    digest = hashlib.sha256(repr((sorted(store.attrs.items()), CHUNK, region_scale)).encode())
    for array in (table.X.data, table.X.indices, table.X.indptr, *table.obsm.values()):
        digest.update(np.ascontiguousarray(array).data)
    for frame in (table.obs, table.var):
        digest.update(repr(list(frame.dtypes.astype(str).items())).encode())
        digest.update(hash_pandas_object(frame).to_numpy().data)
    if slide:
        some = slide.centers[:: max(1, len(slide.centers) // 4)]
        digest.update(slide.pyramid.read(some, size=32, um_per_px=um_per_px).data)
    return digest.hexdigest()


def _unfinished(path: Path) -> str | None:
    import zarr

    try:
        return zarr.open_group(path, mode="r", use_consolidated=False).attrs.get(UNFINISHED)
    except (FileNotFoundError, ValueError):
        return None


def _report(path: Path, sdata: Any, table: "AnnData") -> None:
    """Say how large the store is, beside its source where that is a store, too."""
    said = f"{path.name}: {table.n_obs} spots, {_size(path) / 1e6:.1f} MB"
    source = getattr(sdata, "path", None)
    if source is not None and Path(source).is_dir():
        said += f", {_size(path) / max(_size(Path(source)), 1):.2f} times its source"
    logger.info(said)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
