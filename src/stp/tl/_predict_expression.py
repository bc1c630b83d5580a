"""Predict expression from images, by the measured spots that look alike."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.retrieval.nearest import WeightedMeans, nearest, weights
from stp.tables import keys
from stp.tables.profiles import choose_genes, one_unit, profiles
from stp.tables.references import blocks, name_spots, open_embeddings, open_references
from stp.tables.table import record, table_to_annotate

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

FAR = (
    "the highest similarity is not positive, or lower than the first quartile over these spots minus 1.5 times the "
    "distance between their quartiles"
)


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
    """Predict expression by retrieving measured spots whose genes match the image (paper, eq. 12).

    Each query is the similarity-weighted mean of the expression of its nearest references; negative similarities
    weigh nothing, and where none is positive the weights are uniform. The search is exact; ties go to the reference
    that comes first. References on disk are read in blocks.

    Parameters
    ----------
    adata
        Spots with aligned images; needs no counts.
    reference
        Spots with aligned genes and raw counts, never from the slide that is predicted: a table, a SpatialData, the
        path of one on disk (which is not read whole), or several of these.
    genes
        Genes to predict, which all references measure; by default those that `var["highly_variable"]` of any
        reference marks.
    n_neighbors
        References per query.
    use_rep, reference_rep
        Unit vectors in `obsm` of `adata` and of `reference`; "X_stp_pathways_aligned" where images were aligned with
        pathways.
    layer
        Layer of the reference. Raw counts, in X by default, become log1p of counts per 10,000; a layer that holds
        anything else is averaged as it is.
    slide_key
        Column of the references' `obs` that names slides; by default the regions that a SpatialData's table
        annotates, or the reference itself.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_expression' | key_added]` : (n_obs, n_genes) float32
        Prediction; NaN for spots without an embedding.
    `adata.obsm['stp_expression_uncertainty' | key_added + '_uncertainty']` : (n_obs, n_genes) float32
        Weighted standard deviation over the references behind it: how far they disagree, no confidence interval.
    `adata.obsm['stp_expression_neighbors' | key_added + '_neighbors']` : (n_obs, n_neighbors) int32
        Those references, nearest first, as rows of `uns[...]['references']`; -1 for spots without an embedding.
    `adata.obsm['stp_expression_similarity' | key_added + '_similarity']` : (n_obs, n_neighbors) float32
        Their cosines.
    `adata.obs['stp_expression_uniform' | key_added + '_uniform']` : bool
        Whether no similarity was positive.
    `adata.obs['stp_expression_far' | key_added + '_far']` : bool
        Whether the spot is far from any reference, by the rule in `uns`.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`; `genes`, the names of the columns; `units`; `references`, a table of the references that were
        used: their names, slides, place among the references given, and row there; `far`, the rule and threshold;
        `model` that made both embeddings; `version` of stp.

    Raises
    ------
    KeyError
        An embedding or a gene is missing, or no gene is marked as highly variable and none is asked for.
    ValueError
        The embeddings are of different models, or nothing says of which; no spot has an embedding, the references
        share no gene, there are fewer references than `n_neighbors`, or their counts are not raw.

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
    adata, tables = table_to_annotate(adata, table_key, copy), open_references(reference, table_key)
    queries, vectors, model = open_embeddings(adata, use_rep, tables, reference_rep)
    chosen, units = choose_genes(tables, genes), one_unit(tables, layer)
    known = np.isfinite(queries).all(axis=1)
    if not known.any():
        raise ValueError(f"no spot has an embedding in obsm[{use_rep!r}], all are NaN")
    if n_neighbors > (n := sum(one.shape[0] for one in vectors)):
        raise ValueError(
            f"cannot retrieve {n_neighbors} neighbors from {n} references; lower n_neighbors"
        )
    found = nearest(queries[known], blocks(vectors), n_neighbors)
    weight, uniform = weights(found.similarity)
    average = WeightedMeans(found.index, weight, len(chosen))
    _read_profiles(average, tables, layer, chosen)
    far, threshold = _far(found.similarity[:, 0])
    rows = average.rows
    results = {
        key_added: average.mean,
        keys.uncertainty(key_added): average.std,
        keys.neighbors(key_added): np.searchsorted(rows, found.index).astype(np.int32),
        keys.similarity(key_added): found.similarity,
    }
    for key, values in results.items():
        adata.obsm[key] = _fill_missing_spots(values, known)
    adata.obs[keys.uniform(key_added)] = _fill_missing_spots(uniform, known)
    adata.obs[keys.far(key_added)] = _fill_missing_spots(far, known)
    params = {
        "n_neighbors": n_neighbors,
        "use_rep": use_rep,
        "reference_rep": reference_rep,
        "layer": layer,
    }
    details = {
        "references": name_spots(tables, rows, slide_key),
        "far": {"rule": FAR, "threshold": threshold},
    }
    record(adata, key_added, params, genes=chosen, units=units, **details, model=model)
    return adata if copy else None


def _read_profiles(
    average: WeightedMeans, tables: dict[str, "AnnData"], layer: str | None, genes: np.ndarray
) -> None:
    """Add the profiles of the references that are needed, and of no others, to the averages."""
    rows, first = average.rows, 0
    for table in tables.values():
        of_table = rows[slice(*np.searchsorted(rows, (first, first + table.n_obs)))]
        done = 0
        for block in profiles(table, layer, genes, of_table - first) if len(of_table) else ():
            average.add(of_table[done : done + len(block)], block)
            done += len(block)
        first += table.n_obs


def _far(best: np.ndarray) -> tuple[np.ndarray, float]:
    """Flag spots whose best reference is unlike theirs, as Tukey flags outliers; return the threshold too."""
    low, high = np.quantile(best, (0.25, 0.75))
    threshold = float(max(low - 1.5 * (high - low), 0.0))
    return (best < threshold) | (best <= 0), threshold


def _fill_missing_spots(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Give values to the spots that have an embedding; the others get NaN, -1 or False."""
    empty = {"f": np.nan, "i": -1, "b": False}[values.dtype.kind]
    full = np.full((len(known), *values.shape[1:]), empty, dtype=values.dtype)
    full[known] = values
    return full
