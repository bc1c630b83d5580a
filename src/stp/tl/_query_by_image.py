"""Search measured spots by the image of a tile."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn
from stp.genes.gene_program import choose_shared
from stp.genes.table_genes import check_one_species
from stp.tables import keys
from stp.tables.own_slides import check_other_slides
from stp.tables.profiles import LOG_COUNTS, one_unit
from stp.tables.references import name_spots, open_embeddings, open_references
from stp.tables.table import get_table, record, table_to_annotate
from stp.tl._enrichment import compare_with_rest
from stp.tl._query_shared import number_slides, recall_by_slide, search_all

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


def query_by_image(
    sdata: "SpatialData | AnnData",
    tile: str,
    *,
    reference: "AnnData | SpatialData | str | Path | Iterable[AnnData | SpatialData | str | Path]",
    n_spots: int = 50,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
    use_rep: str = "X_stp_images_aligned",
    reference_rep: str = "X_stp_genes_aligned",
    layer: str | None = None,
    slide_key: str | None = None,
    table_key: str = "table",
    key_added: str = keys.IMAGE_QUERY,
    copy: bool = False,
) -> "AnnData | None":
    """Find the measured spots that look like a tile, and the genes that are high in them.

    The spots are those whose aligned gene vectors have the highest cosine to the aligned image
    vector of the tile. The search is exact, and references on disk are read in blocks.

    Each gene is compared between these spots and the rest of their slides by a rank-sum test that
    is stratified by slide (van Elteren 1960). Differences between slides therefore do not count.
    Spots of a slide are not independent, so the q-values rank genes and prove nothing.

    Parameters
    ----------
    sdata
        SpatialData or table with aligned image vectors of tiles or spots; it needs no counts.
    tile
        Name of the tile in `obs_names`.
    reference
        Measured spots with aligned gene vectors and raw counts, never from the slide that is
        searched: a table, a SpatialData, the path of one on disk (which is read in blocks), a list
        of these, or a collection.
    n_spots
        Number of measured spots to find.
    gene_sets
        Gene sets to compare too: a dictionary of names and genes, which are symbols or Ensembl ids.
        A set needs five genes that all references measure; others are left out with a warning.
    use_rep
        Name of the aligned image vectors in `obsm`.
    reference_rep
        Name of the aligned gene vectors in `obsm` of `reference`; "X_stp_pathways_aligned" if
        images were aligned with pathways.
    layer
        Layer with the raw counts; by default `X`.
    slide_key
        Column of `obs` with slides. It is read from the references; by default a slide is a region
        that the table of a SpatialData annotates, or else the whole reference.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `table.uns['stp_image_query' | key_added]` : dict
        `params`, with the tile; `spots`, a table of the spots that were found, nearest first, with
        their names, slides, references, rows and `similarity`; `genes` and `pathways`, tables of
        the genes and gene sets, the most enriched first, with their mean log expression in these
        spots and in the rest, `auroc`, `z`, `p` and `q` after Benjamini and Hochberg; `recall`, how
        often the image of a spot finds its own genes on its slide, if the searched spots have gene
        vectors; `model` that made both embeddings; `version` of stp.

    Raises
    ------
    KeyError
        An embedding is missing, or there is no such tile.
    ValueError
        The tile has no embedding; the embeddings are of different models, or `uns` does not record
        of which; a reference holds spots of the slide that is searched; the references are of
        different species or share no gene; their counts are not raw; no gene set has five measured
        genes; or there are fewer references than `n_spots`.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> tile = sdata.tables["table"].obs_names[0]
    >>> stp.tl.query_by_image(sdata, tile, reference=reference, n_spots=20)
    >>> len(sdata.tables["table"].uns["stp_image_query"]["spots"])
    20
    """
    tables = open_references(reference, table_key)
    check_other_slides(get_table(sdata, table_key), tables, (reference_rep, use_rep))
    adata = table_to_annotate(sdata, table_key, copy)
    queries, vectors, model = open_embeddings(adata, use_rep, tables, reference_rep)
    row = _find_tile(adata, tile)
    if not np.isfinite(queries[row]).all():
        raise ValueError(f"tile {tile!r} has no embedding in obsm[{use_rep!r}]; choose another")
    check_one_species(tables)
    if one_unit(tables, layer) != LOG_COUNTS:
        raise ValueError(
            f"layer {layer!r} of the reference is not raw counts; pass the one that is"
        )
    genes = choose_shared(tables)
    if n_spots < 1:
        raise ValueError(f"n_spots is {n_spots}; give a number of at least 1")
    search = search_all(queries[row : row + 1], vectors, n_spots, "lower n_spots")
    hits = search.neighbors.index[0]
    similarity = search.neighbors.similarity[0]
    if similarity[0] <= 0:
        warn(
            f"tile {tile!r} is far from all references, because no similarity is positive; the "
            "spots that were found say little"
        )
    gene_table, set_table = compare_with_rest(
        tables,
        genes,
        hits,
        number_slides(tables, slide_key),
        is_usable=search.is_usable,
        layer=layer,
        gene_sets=gene_sets or {},
    )
    params = {
        "tile": tile,
        "n_spots": n_spots,
        "use_rep": use_rep,
        "reference_rep": reference_rep,
        "layer": layer,
    }
    record(
        adata,
        key_added,
        params,
        spots=_describe_spots(tables, hits, similarity, slide_key),
        genes=gene_table,
        pathways=set_table,
        recall=recall_by_slide(adata, use_rep, reference_rep, slide_key),
        model=model,
    )
    return adata if copy else None


def _find_tile(adata: "AnnData", tile: str) -> int:
    """Return the row of a tile, or raise KeyError if there is none, ValueError if several."""
    rows = np.flatnonzero(adata.obs_names == tile)
    if not len(rows):
        raise KeyError(f"no tile {tile!r}; choose from the table's obs_names")
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} tiles have the name {tile!r}; make obs_names unique")
    return int(rows[0])


def _describe_spots(
    tables: Mapping[str, "AnnData"],
    hits: np.ndarray,
    similarity: np.ndarray,
    slide_key: str | None,
) -> "pd.DataFrame":
    """Return a row per spot that was found, the nearest first."""
    order = np.argsort(hits)
    frame = name_spots(tables, hits[order], slide_key)
    frame["similarity"] = similarity[order]
    frame = frame.iloc[np.argsort(order)].reset_index(drop=True)
    frame.index = frame.index.astype(str)
    return frame
