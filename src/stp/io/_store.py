"""Rewrite a slide as a store for training: counts by Ensembl id, spots in µm, an image."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stp._lock import lock
from stp._log import count, logger
from stp._text import readable
from stp._urls import as_url, url_name
from stp.data.store import names_digest, spots_digest
from stp.data.store_source import STORE, STORE_VERSION
from stp.genes.table_genes import TableGenes, recognize_table
from stp.genes.vocabulary import Vocabulary
from stp.images.scale import Scale, first_source, record_scale
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.images.spots_on_tissue import warn_if_on_glass
from stp.io._store_folder import write_folder
from stp.io._store_image import StoreLevels
from stp.io._store_parts import (
    assemble_store,
    centers_without_image,
    name_slide,
    spot_radius_um,
    sum_counts_by_gene,
)
from stp.io._store_path import check_free, local_path
from stp.io._upload_store import open_objects, require_free, upload_store
from stp.remote.cache import temporary_folder
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SOURCE = "stp_source"  # attribute: what a store was made from


class TableQuery(NamedTuple):
    """Names by which a caller chooses the counts of a slide.

    Parameters
    ----------
    table_key
        Name of the table in a SpatialData.
    layer
        Layer with the raw counts; by default `X`.
    gene_ids_key
        Column of `var` with gene names; None for `var_names`; by default `gene_ids` if it
        holds Ensembl ids, else `var_names`.
    vocabulary
        Genes of the species, by which columns are named; by default the human vocabulary.
    """

    table_key: str = "table"
    layer: str | None = None
    gene_ids_key: str | None = "auto"
    vocabulary: Vocabulary | None = None


def write_store(
    sdata: "SpatialData",
    path: str | Path,
    *,
    table_key: str = "table",
    layer: str | None = None,
    gene_ids_key: str | None = "auto",
    vocabulary: Vocabulary | None = None,
    image_key: str | None = None,
    shapes_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | None = None,
    spot_pitch_um: float | None = None,
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
        The new store, a SpatialData zarr folder, or its URL. It appears when it is complete. If a
        former call was stopped, this call continues to write the image of a local store. A remote
        store is written in the cache first, see :func:`stp.io.upload_store`.
    table_key
        Name of the table in a SpatialData.
    layer
        Layer with the raw counts; by default `X`.
    gene_ids_key
        Column of `var` with gene names; None for `var_names`; by default `gene_ids` if it
        holds Ensembl ids, else `var_names`.
    vocabulary
        Genes of the species, by which columns are named; by default the human vocabulary.
    image_key
        Name of the image; by default it is resolved from the table.
    shapes_key
        Name of the shapes or labels of the spots; by default the region that the table annotates.
    coordinate_system
        Coordinate system that spots and image share; by default it is resolved from the data.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    spot_pitch_um
        µm between neighboring spots of a square grid, such as 200 for Spatial Transcriptomics.
    patch_um_per_px
        µm per pixel of the finer level, from which patches are cut.
    region_scale
        Factor from the finer level to the coarser one, from which regions are cut.
    overwrite
        Replace an existing store.

    Notes
    -----
    The spots are shapes with the name of the slide: the region that the table annotates, such as
    `name` of :func:`stp.io.from_anndata`, or the name of the file if the slide has none. Genes that
    the vocabulary knows are renamed to its ids, and columns of one gene are summed. Other genes of
    the species keep their names. `var["symbol"]` has the symbols. Antibodies, control probes and
    genes of another species are left out. Spot centers are stored in `obsm["spatial"]`, in µm if
    the scale is known. The image is read as a stream, so memory does not grow with the slide. The
    attribute `stp_source` records what the store was made from. The attribute `stp_store` records a
    digest of counts, genes, spots, settings and all pixels. It does not depend on the name or the
    path of the store, and `stp.train` recognizes stores by it.

    Raises
    ------
    FileExistsError
        There is something at `path`, and `overwrite` is False or it is no store.
    BlockingIOError
        Another process writes to `path`, and `overwrite` is False. With `overwrite` this call
        waits.
    ConnectionError
        The server of a remote store cannot be reached.
    ValueError
        There are no genes, no raw counts, several slides in one table, spots
        without coordinates, most spots lie outside the image, the image is too coarse, the genes
        are of another species than the vocabulary, or less than half of the UMIs are in it.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0, overwrite=True)
    >>> list(spatialdata.read_zarr("slide.zarr").images)
    ['image']
    """
    levels = StoreLevels(patch_um_per_px, region_scale)
    counts = TableQuery(table_key, layer, gene_ids_key, vocabulary)
    query = SlideQuery(image_key, shapes_key, coordinate_system, um_per_px, spot_pitch_um)
    url = as_url(path)
    if url is not None:
        require_free(open_objects(url), overwrite=overwrite)
        with temporary_folder("writing") as folder:
            write_slide(sdata, folder / url_name(url), counts, query, levels)
            upload_store(folder / url_name(url), url, overwrite=overwrite)
        return
    path = local_path(path)
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path, "writing to", wait=overwrite):
        check_free(path, overwrite)
        write_slide(sdata, path, counts, query, levels)


def write_slide(
    sdata: Any, path: Path, counts: TableQuery, query: SlideQuery, levels: StoreLevels
) -> None:
    """Write one slide as a store, in place of the store that may be at `path`."""
    table = get_table(sdata, counts.table_key)
    _check_table(table)
    vocabulary = counts.vocabulary or Vocabulary.default()
    genes = _recognize_genes(table, counts, vocabulary)
    slide = _find_slide(sdata, table, query)
    if slide is None:
        centers, unit = centers_without_image(sdata, table, query)
    else:
        slide.pyramid.check_scale(levels.um_per_px)
        slide.pyramid.check_chunks(slide.centers, levels.um_per_px)
        warn_if_on_glass(table, slide)
        centers = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
        unit = "um"
    by_gene = sum_counts_by_gene(table, genes, vocabulary, counts.layer)
    name = name_slide(sdata, table, readable(path.name).removesuffix(".zarr"))
    radius = spot_radius_um(sdata, table, slide, query)
    store = assemble_store(by_gene, centers, unit, slide, levels, name, radius)
    genes_digest = names_digest(by_gene.var_names)
    store.attrs[STORE] = {
        "version": STORE_VERSION,
        "name": name,
        "genes": genes_digest,
        "spots_digest": spots_digest(genes_digest, by_gene.n_vars, by_gene.X.indptr, centers),
        "species": vocabulary.species,
        "vocabulary": vocabulary.digest,
        "unit": unit,
        "patch_um_per_px": levels.um_per_px if slide else None,
        "scale_source": slide.pyramid.scale_source if slide else None,
    }
    store.attrs[SOURCE] = _describe_source(sdata, slide)
    if slide is not None and slide.other_scales:
        record_scale(store, "image", _scale_of_store(slide, levels))
    write_folder(store, path, slide, levels)
    _log_size(path, sdata, table)


def _check_table(table: "AnnData") -> None:
    """Raise ValueError if a table has no rows or no genes."""
    if not table.n_obs:
        raise ValueError("the table has no rows, so there is nothing to train on")
    if not table.n_vars:
        raise ValueError(
            "the table has no genes, so there is nothing to train on; tiles of stp.io.read_wsi "
            "are there for stp.tl.embed_images"
        )


def _recognize_genes(table: "AnnData", counts: TableQuery, vocabulary: Vocabulary) -> TableGenes:
    """Recognize the genes of a table, or raise ValueError if they are of another species."""
    try:
        return recognize_table(vocabulary, table, counts.gene_ids_key)
    except ValueError as error:
        remedy = "In a manifest, the column 'species' chooses the vocabulary"
        if counts.vocabulary is None:
            remedy = f"Give the vocabulary of another species as vocabulary=. {remedy}"
        raise ValueError(f"{error}. {remedy}") from error


def _find_slide(sdata: Any, table: "AnnData", query: SlideQuery) -> Slide | None:
    """Return the slide of the table, or None if there is no image."""
    if not getattr(sdata, "images", None):
        return None
    return only_slide(sdata, table, query)


def _describe_source(sdata: Any, slide: Slide | None) -> dict[str, Any]:
    """Return what a store is made from, for its attributes."""
    path = getattr(sdata, "path", None) or getattr(sdata, "filename", None)
    source = {"path": readable(path) if path else None, "stp": version("stp-spatial")}
    if slide is None:
        return source
    return {
        **source,
        "region": slide.region,
        "image_key": slide.image_key,
        "coordinate_system": slide.coordinate_system,
        "um_per_px": slide.pyramid.um_per_px,
        "scale_source": first_source(sdata, slide.image_key, slide.pyramid.scale_source),
        "other_scales": dict(slide.other_scales),
        "shapes": [list(map(int, level.shape)) for level in slide.pyramid.levels],
    }


def _scale_of_store(slide: Slide, levels: StoreLevels) -> Scale:
    """Return the scale of the image of a store, from that of its slide."""
    factor = levels.um_per_px / slide.pyramid.um_per_px
    others = {name: value * factor for name, value in slide.other_scales.items()}
    return Scale(levels.um_per_px, slide.pyramid.scale_source, others)


def _log_size(path: Path, sdata: Any, table: "AnnData") -> None:
    """Log the size of the store, and compare it with its source if that is on disk."""
    n_bytes = _folder_bytes(path)
    message = f"Wrote {path.name}: {count(table.n_obs, 'spot')}, {n_bytes / 1e6:.1f} MB"
    source = getattr(sdata, "path", None)
    if source is not None and Path(source).is_dir():
        ratio = n_bytes / max(_folder_bytes(Path(source)), 1)
        message += f", {ratio:.2f} times the size of its source"
    logger.info(message)


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
