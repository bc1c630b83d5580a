"""Search slides without counts by a gene program."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.genes.gene_program import GeneProgram, find_program
from stp.genes.table_genes import check_one_species
from stp.retrieval.nearest import Neighbors, nearest
from stp.tables import keys
from stp.tables.own_slides import check_other_slides
from stp.tables.profiles import LOG_COUNTS, one_unit, profiles
from stp.tables.program_scores import choose_extremes, score_program
from stp.tables.references import name_spots, open_embeddings, open_references
from stp.tables.table import get_table, record, table_to_annotate
from stp.tl._far_spots import FAR_RULE, MAX_DOUBTFUL, fill_missing_spots, find_far
from stp.tl._query_shared import (
    number_slides,
    read_rows,
    recall_by_slide,
    require_vectors,
    search_all,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Examples:
    """The reference spots that express a program most and least: rows through all tables."""

    highest: np.ndarray  # (n_highest,) ascending
    lowest: np.ndarray  # (n_lowest,) ascending
    scores: np.ndarray  # (n_references,) in standard deviations of a slide

    @property
    def rows(self) -> np.ndarray:
        """All examples, in ascending order."""
        return np.union1d(self.highest, self.lowest)


def query_by_genes(
    sdata: "SpatialData | AnnData",
    genes: Mapping[str, float] | Sequence[str] | str,
    *,
    reference: "AnnData | SpatialData | str | Path | Iterable[AnnData | SpatialData | str | Path]",
    share: float = 0.1,
    n_neighbors: int = 10,
    use_rep: str = "X_stp_images_aligned",
    reference_rep: str = "X_stp_genes_aligned",
    layer: str | None = None,
    slide_key: str | None = None,
    table_key: str = "table",
    key_added: str = keys.QUERY,
    copy: bool = False,
) -> "AnnData | None":
    """Score how much each tile looks like measured spots that express a gene program.

    The program of a reference spot is scored on log1p of counts per 10,000. Each gene is
    standardized within its slide, the weighted sum is taken, and the sum is standardized within the
    slide. The spots with the highest and with the lowest scores of each slide are the examples. A
    slide without the program also has highest spots, so leave such slides out.

    The score of a tile is the mean cosine to the nearest examples that express the program most,
    minus the mean cosine to the nearest that express it least. It ranks tiles, and has no unit of
    expression. The search is exact. References on disk are read in blocks.

    Parameters
    ----------
    sdata
        SpatialData or table with aligned image vectors of tiles or spots; it needs no counts.
    genes
        A dictionary of genes and their weights, which may be negative, or a list of genes that all
        have the weight 1. Genes are symbols or Ensembl ids.
    reference
        Measured spots with aligned gene vectors and raw counts, never from the slide that is
        searched: a table, a SpatialData, the path of one on disk (which is read in blocks), a list
        of these, or a collection.
    share
        Share of the spots of a reference slide that are examples of high expression, and of low
        expression; at most 0.5.
    n_neighbors
        Number of examples of each kind that a tile is compared with.
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
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `table.obs['stp_query' | key_added]` : float32
        Score, a difference of cosines; NaN for spots without an embedding.
    `table.obs['stp_query_far' | key_added + '_far']` : bool
        Whether the spot is far from all references, by the rule in `uns`. A warning says if more
        than 5 % of the spots are far.
    `table.obsm['stp_query_neighbors' | key_added + '_neighbors']` : (n, n_neighbors) int32
        The nearest examples of high expression, nearest first, as rows of
        `uns[...]['references']`; -1 for spots without an embedding.
    `table.obsm['stp_query_similarity' | key_added + '_similarity']` : (n, n_neighbors) float32
        Cosine similarity of these examples.
    `table.uns['stp_query' | key_added]` : dict
        `params`; `genes`, a table with the id and weight of each gene, and how far its mean log
        expression in the examples of either kind is from that of all examples; `missing`, the genes
        that were left out; `references`, a table of all examples with their names, slides, rows,
        score of the program and kind; `recall`, how often the image of a spot finds its own genes
        on its slide, if the searched spots have gene vectors; `far`, the rule and threshold;
        `model` that made both embeddings; `version` of stp.

    Raises
    ------
    KeyError
        An embedding is missing, or less than half of the weights are of genes that all references
        measure. If fewer genes are missing, a warning names them.
    ValueError
        The embeddings are of different models, or `uns` does not record of which; no spot has an
        embedding; a reference holds spots of the slide that is searched; the references are of
        different species; their counts are not raw; or there are fewer examples than
        `n_neighbors`.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.query_by_genes(sdata, {"EPCAM": 1, "COL1A1": -1}, reference=reference)
    >>> best = sdata.tables["table"].obs["stp_query"].nlargest(10).index
    """
    _check_numbers(share, n_neighbors)
    tables = open_references(reference, table_key)
    check_other_slides(get_table(sdata, table_key), tables, (reference_rep, use_rep))
    adata = table_to_annotate(sdata, table_key, copy)
    queries, vectors, model = open_embeddings(adata, use_rep, tables, reference_rep)
    check_one_species(tables)
    program = find_program(tables, genes)
    _require_counts(tables, layer)
    has_embedding = require_vectors(queries, use_rep)
    queries = queries[has_embedding]
    everything = search_all(queries, vectors, 1, "embed their genes")
    is_far, threshold = find_far(everything.neighbors.similarity[:, 0])
    _warn_about_far(is_far, key_added)
    slides = number_slides(tables, slide_key)
    scores = score_program(
        tables,
        program.genes.columns,
        program.weights,
        slides,
        layer=layer,
        is_usable=everything.is_usable,
    )
    examples = Examples(*choose_extremes(scores, slides, share), scores)
    _require_examples(examples, n_neighbors)
    high = nearest(queries, read_rows(vectors, examples.highest), n_neighbors)
    low = nearest(queries, read_rows(vectors, examples.lowest), n_neighbors)
    score = high.similarity.mean(axis=1) - low.similarity.mean(axis=1)
    adata.obs[key_added] = fill_missing_spots(score.astype(np.float32), has_embedding)
    adata.obs[keys.far(key_added)] = fill_missing_spots(is_far, has_embedding)
    _write_neighbors(adata, key_added, high, examples, has_embedding)
    params = {
        "share": share,
        "n_neighbors": n_neighbors,
        "use_rep": use_rep,
        "reference_rep": reference_rep,
        "layer": layer,
    }
    record(
        adata,
        key_added,
        params,
        genes=_describe_genes(tables, program, examples, slides, layer),
        missing=np.array(program.missing, dtype=object),
        references=_describe_examples(tables, examples, slide_key),
        recall=recall_by_slide(adata, use_rep, reference_rep, slide_key),
        far={"rule": FAR_RULE, "threshold": threshold},
        model=model,
    )
    return adata if copy else None


def _check_numbers(share: float, n_neighbors: int) -> None:
    if not 0 < share <= 0.5:
        raise ValueError(
            f"share is {share}; give the share of reference spots that are examples, above 0 and "
            "at most 0.5"
        )
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors is {n_neighbors}; give a number of at least 1")


def _require_counts(tables: Mapping[str, "AnnData"], layer: str | None) -> None:
    units = one_unit(tables, layer)
    if units != LOG_COUNTS:
        raise ValueError(f"{units} of the reference is not raw counts; pass the layer= that is")


def _require_examples(examples: Examples, n_neighbors: int) -> None:
    n_examples = min(len(examples.highest), len(examples.lowest))
    if n_examples < n_neighbors:
        raise ValueError(
            f"{len(examples.highest)} reference spots express the program most and "
            f"{len(examples.lowest)} least, fewer than n_neighbors={n_neighbors}; raise share, "
            "lower n_neighbors, or check that the program varies in the references"
        )


def _warn_about_far(is_far: np.ndarray, key: str) -> None:
    """Warn if more than 5 % of the searched spots are far from all references."""
    n_far = np.count_nonzero(is_far)
    if n_far > MAX_DOUBTFUL * len(is_far):
        warn(
            f"{n_far} of {len(is_far)} searched spots ({n_far / len(is_far):.1%}) are far from all "
            f"references (obs[{keys.far(key)!r}]), and their scores say little; likely causes: "
            "glass, folds or another tissue under these spots, another stain or a wrong um_per_px "
            "than the references have, or a model that was not trained on such slides"
        )


def _write_neighbors(
    adata: "AnnData", key: str, high: Neighbors, examples: Examples, has_embedding: np.ndarray
) -> None:
    """Write which examples each spot is nearest to, as rows of the table of all examples."""
    index = np.searchsorted(examples.rows, examples.highest[high.index]).astype(np.int32)
    adata.obsm[keys.neighbors(key)] = fill_missing_spots(index, has_embedding)
    adata.obsm[keys.similarity(key)] = fill_missing_spots(high.similarity, has_embedding)


def _describe_examples(
    tables: Mapping[str, "AnnData"], examples: Examples, slide_key: str | None
) -> "pd.DataFrame":
    """Return a row per example: its spot, slide, score of the program and kind."""
    frame = name_spots(tables, examples.rows, slide_key)
    frame["program"] = examples.scores[examples.rows].astype(np.float32)
    is_highest = np.isin(examples.rows, examples.highest)
    frame["kind"] = np.where(is_highest, "highest", "lowest")
    frame["kind"] = frame["kind"].astype("category")
    return frame


def _describe_genes(
    tables: Mapping[str, "AnnData"],
    program: GeneProgram,
    examples: Examples,
    slides: np.ndarray,
    layer: str | None,
) -> "pd.DataFrame":
    """Return a row per gene: its id, its weight, and its mean in either kind of examples.

    The means are distances from the mean of all examples of the slide, in log1p of counts per
    10,000.
    """
    import pandas as pd

    values = _read_examples(tables, program, examples.rows, layer)
    own = slides[examples.rows]
    for slide in np.unique(own):
        values[own == slide] -= values[own == slide].mean(axis=0)
    is_highest = np.isin(examples.rows, examples.highest)
    columns: dict[str, Any] = {
        "gene_id": program.genes.ids.astype(str),
        "weight": program.weights,
        "highest": values[is_highest].mean(axis=0),
        "lowest": values[~is_highest].mean(axis=0),
    }
    return pd.DataFrame(columns, index=program.genes.names.astype(str))


def _read_examples(
    tables: Mapping[str, "AnnData"], program: GeneProgram, rows: np.ndarray, layer: str | None
) -> np.ndarray:
    """Return log1p of counts per 10,000 (n_examples, n_genes) of the program."""
    parts = []
    first = 0
    for label, table in tables.items():
        start, stop = np.searchsorted(rows, (first, first + table.n_obs))
        if start < stop:
            columns = program.genes.columns[label]
            parts += list(profiles(table, layer, columns, rows[start:stop] - first))
        first += table.n_obs
    return np.concatenate(parts).astype(float)
