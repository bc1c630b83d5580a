"""Predict expression from images by retrieving similar measured spots."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn
from stp._progress import Progress
from stp.genes.gene_choice import GeneChoice, choose_genes
from stp.genes.table_genes import check_one_species
from stp.retrieval.nearest import WeightedMeans, nearest, weights
from stp.tables import keys
from stp.tables.own_slides import warn_of_own_slide
from stp.tables.profiles import one_unit, profiles
from stp.tables.references import blocks, name_spots, open_embeddings, open_references
from stp.tables.table import record, table_to_annotate
from stp.tl._far_spots import FAR_RULE, MAX_DOUBTFUL, find_far

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

NUMBERED_ROWS = 65_536  # spots whose references are numbered at a time


def predict_expression(
    adata: "AnnData | SpatialData",
    reference: "AnnData | SpatialData | str | Path | Iterable[AnnData | SpatialData | str | Path]",
    *,
    genes: str | Sequence[str] | None = None,
    n_neighbors: int = 50,
    use_rep: str = "X_stp_images_aligned",
    reference_rep: str = "X_stp_genes_aligned",
    layer: str | None = None,
    slide_key: str | None = None,
    table_key: str = "table",
    key_added: str = keys.EXPRESSION,
    copy: bool = False,
) -> "AnnData | None":
    """Predict expression from measured spots whose genes match the image (paper, equation 12).

    The prediction for a spot is the mean expression of its nearest references, weighted by
    similarity. Negative similarities get weight 0; if no similarity is positive, all weights are
    equal. The search is exact. If several references are equally similar, the first ones are used.
    References on disk are read in blocks.

    Parameters
    ----------
    adata
        Table with aligned image vectors of the spots to predict; it needs no counts.
    reference
        Measured spots with aligned gene vectors and raw counts, never from the slide that is
        predicted: a table, a SpatialData, the path of one on disk (which is read in blocks), or a
        list of these.
    genes
        Symbols or Ensembl ids of the genes to predict, which all references must measure; by
        default those that `var["highly_variable"]` of any reference marks.
    n_neighbors
        Number of references per predicted spot.
    use_rep
        Name of the aligned image vectors in `obsm`.
    reference_rep
        Name of the aligned gene vectors in `obsm` of `reference`; "X_stp_pathways_aligned" if
        images were aligned with pathways.
    layer
        Layer of the references; by default `X`. Raw counts become log1p of counts per 10,000, other
        values are used as they are.
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

    `adata.obsm['stp_expression' | key_added]` : (n, n_genes) float32
        Prediction; NaN for spots without an embedding.
    `adata.obsm['stp_expression_uncertainty' | key_added + '_uncertainty']` : (n, n_genes) float32
        Weighted standard deviation over the references of a prediction. It shows how far they
        disagree and is not a confidence interval.
    `adata.obsm['stp_expression_neighbors' | key_added + '_neighbors']` : (n, n_neighbors) int32
        References of each prediction, nearest first, as rows of `uns[...]['references']`; -1 for
        spots without an embedding.
    `adata.obsm['stp_expression_similarity' | key_added + '_similarity']` : (n, n_neighbors) float32
        Cosine similarity of these references.
    `adata.obs['stp_expression_uniform' | key_added + '_uniform']` : bool
        Whether no similarity was positive.
    `adata.obs['stp_expression_far' | key_added + '_far']` : bool
        Whether the spot is far from all references, by the rule in `uns`. A warning says if more
        than 5 % of the spots are far or uniform.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`; `genes`, the names of the columns: symbols if they are known; `gene_ids`, their
        Ensembl ids, "" if unknown; `units`; `references`, a table of the
        references that were used with their names and slides, the number of the reference that they
        belong to, and their row in it; `far`, the rule and threshold; `model` that made both
        embeddings; `version` of stp.

    Raises
    ------
    KeyError
        An embedding or a gene is missing, or `genes` is left out and no gene is marked as highly
        variable.
    ValueError
        The embeddings are of different models, or `uns` does not record of which; no spot has an
        embedding; the references are of different species or share no gene; there are fewer
        references than `n_neighbors`; or their counts are not raw.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names[:5])
    >>> sdata.tables["table"].obsm["stp_expression"].shape[1]
    5
    """
    adata = table_to_annotate(adata, table_key, copy)
    tables = open_references(reference, table_key)
    queries, vectors, model = open_embeddings(adata, use_rep, tables, reference_rep)
    check_one_species(tables)
    warn_of_own_slide(adata, tables, (use_rep, reference_rep))
    genes_to_predict = choose_genes(tables, genes)
    units = one_unit(tables, layer)
    # Rows that are not finite are NaN in all columns, and a vector of zeros has no direction.
    if not (np.isfinite(queries[:, 0]) & queries.any(axis=1)).any():
        raise ValueError(f"no spot has an embedding in obsm[{use_rep!r}], all are NaN or zero")
    n_references = sum(array.shape[0] for array in vectors.values())
    if n_neighbors > n_references:
        raise ValueError(
            f"cannot retrieve {n_neighbors} neighbors from {n_references} references; "
            "lower n_neighbors"
        )
    neighbors = nearest(queries, blocks(vectors), n_neighbors, n_references=n_references)
    index, similarity = neighbors.index, neighbors.similarity
    is_missing = index[:, 0] < 0
    similarity[is_missing] = np.nan
    is_far, threshold = find_far(similarity[:, 0])
    weight, is_uniform = weights(similarity)
    is_uniform &= ~is_missing
    n_predicted = int((~is_missing).sum())
    _warn_about_doubtful(is_far, is_uniform, n_predicted, key_added)
    means = WeightedMeans(index, weight, len(genes_to_predict))
    del weight
    _add_profiles(means, tables, layer, genes_to_predict)
    reference_rows = means.rows
    numbers = _number_references(index, reference_rows)
    mean, std = means.mean, means.take_std()
    mean[is_missing] = np.nan
    std[is_missing] = np.nan
    adata.obsm[key_added] = mean
    adata.obsm[keys.uncertainty(key_added)] = std
    adata.obsm[keys.neighbors(key_added)] = numbers
    adata.obsm[keys.similarity(key_added)] = similarity
    adata.obs[keys.uniform(key_added)] = is_uniform
    adata.obs[keys.far(key_added)] = is_far
    params = {
        "n_neighbors": n_neighbors,
        "use_rep": use_rep,
        "reference_rep": reference_rep,
        "layer": layer,
    }
    record(
        adata,
        key_added,
        params,
        genes=genes_to_predict.names,
        gene_ids=genes_to_predict.ids,
        units=units,
        references=name_spots(tables, reference_rows, slide_key),
        far={"rule": FAR_RULE, "threshold": threshold},
        model=model,
    )
    return adata if copy else None


def _add_profiles(
    means: WeightedMeans, tables: dict[str, "AnnData"], layer: str | None, genes: GeneChoice
) -> None:
    """Add the profiles of the retrieved references to the means; no others are read.

    The rows of the means count the references through all tables.
    """
    all_rows = means.rows
    first_row = 0
    with Progress(len(all_rows), "average profiles", "reference") as progress:
        for label, table in tables.items():
            columns = genes.columns[label]
            start, stop = np.searchsorted(all_rows, (first_row, first_row + table.n_obs))
            rows = all_rows[start:stop]
            if len(rows):
                n_added = 0
                for block in profiles(table, layer, columns, rows - first_row):
                    means.add(rows[n_added : n_added + len(block)], block)
                    n_added += len(block)
                    progress.update(len(block))
            first_row += table.n_obs


def _number_references(index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the number of each reference (n, k) among `rows`, which are in order; -1 if none."""
    numbers = np.full(index.shape, -1, dtype=np.int32)
    for start in range(0, len(index), NUMBERED_ROWS):
        block = index[start : start + NUMBERED_ROWS]
        numbers[start : start + len(block)] = np.where(block < 0, -1, np.searchsorted(rows, block))
    return numbers


def _warn_about_doubtful(
    is_far: np.ndarray, is_uniform: np.ndarray, n_spots: int, key: str
) -> None:
    """Warn if more than 5 % of the `n_spots` predicted spots are far, or have a plain mean."""
    n_doubtful = np.count_nonzero(is_far | is_uniform)
    if n_doubtful <= MAX_DOUBTFUL * n_spots:
        return
    far_share = np.count_nonzero(is_far) / n_spots
    uniform_share = np.count_nonzero(is_uniform) / n_spots
    warn(
        f"{n_doubtful} of {n_spots} predicted spots ({n_doubtful / n_spots:.1%}) say little: "
        f"{far_share:.1%} are far from all references (obs[{keys.far(key)!r}]), and "
        f"{uniform_share:.1%} have no similar reference and get a plain mean "
        f"(obs[{keys.uniform(key)!r}]); likely causes: glass, folds or another tissue under these "
        "spots, another stain or a wrong um_per_px than the references have, or a model that was "
        "not trained on such slides"
    )
