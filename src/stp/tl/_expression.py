"""Predict expression from images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp import _keys
from stp._counts import log_normalized_blocks
from stp._provenance import model_of, require_one_model
from stp._table import begin, get_table, record, require
from stp.retrieval import nearest, weights

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

UNITS = "log1p of counts per 10,000"


def predict_expression(
    adata: "AnnData | SpatialData",
    reference: "AnnData | SpatialData",
    *,
    genes: Sequence[str] | None = None,
    n_neighbors: int = 50,
    use_rep: str = "X_stp_images_aligned",
    reference_rep: str = "X_stp_genes_aligned",
    layer: str | None = None,
    table_key: str = "table",
    key_added: str = _keys.EXPRESSION,
    copy: bool = False,
) -> "AnnData | None":
    """Predict expression by retrieving measured spots whose genes match the image (paper, eq. 12).

    Each query is the similarity-weighted mean of the expression of its nearest references; negative similarities
    weigh nothing, and where none is positive the weights are uniform.

    Parameters
    ----------
    adata
        Spots with aligned images; needs no counts.
    reference
        Spots with aligned genes and raw counts, never from the slide that is predicted.
    genes
        Genes of the reference to predict; all by default.
    n_neighbors
        References per query.
    use_rep, reference_rep
        Unit vectors in `obsm` of `adata` and of `reference`.
    layer
        Layer of the reference's raw counts; X by default.
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
        Predicted log1p of counts per 10,000; NaN for spots without an embedding.
    `adata.obs['stp_expression_uniform' | key_added + '_uniform']` : bool
        Whether no similarity was positive.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`; `genes`, the names of the columns; `units`; `model` that made both embeddings; `version` of stp.

    Raises
    ------
    KeyError
        An embedding or a gene is missing.
    ValueError
        The embeddings are of different models, or nothing says of which; no spot has an embedding, there are fewer
        references than `n_neighbors`, or their counts are not raw.
    """
    adata, reference = begin(adata, table_key, copy), get_table(reference, table_key)
    queries = np.asarray(require(adata, "obsm", use_rep, "stp.tl.embed_images(sdata, model)"))
    references = np.asarray(require(reference, "obsm", reference_rep, "stp.tl.embed_genes(reference, model)"))
    models = {"the images": model_of(adata, use_rep), "the reference's genes": model_of(reference, reference_rep)}
    model = require_one_model(models)
    profiles, names = _profiles(reference, layer, genes)
    known, usable = (np.isfinite(x).all(axis=1) for x in (queries, references))
    if not known.any():
        raise ValueError(f"no spot has an embedding in obsm[{use_rep!r}], all are NaN")
    found = nearest(queries[known], references[usable], n_neighbors)
    weight, uniform = weights(found.similarity)
    predicted = np.full((adata.n_obs, len(names)), np.nan, dtype=np.float32)
    predicted[known] = _average(profiles[np.flatnonzero(usable)], found.index, weight)
    adata.obsm[key_added] = predicted
    flagged = np.zeros(adata.n_obs, dtype=bool)
    flagged[known] = uniform
    adata.obs[_keys.uniform(key_added)] = flagged
    params = {"n_neighbors": n_neighbors, "use_rep": use_rep, "reference_rep": reference_rep, "layer": layer}
    record(adata, key_added, params, genes=names, units=UNITS, model=model)
    return adata if copy else None


def _profiles(reference: "AnnData", layer: str | None, genes: Sequence[str] | None) -> tuple["csr_matrix", np.ndarray]:
    """Return log1p of counts per 10,000, normalized over all genes, for the chosen ones, and their names."""
    import scipy.sparse

    names = reference.var_names if genes is None else genes
    columns = reference.var_names.get_indexer(names)
    if (columns < 0).any():
        missing = [name for name, column in zip(names, columns, strict=True) if column < 0]
        raise KeyError(f"{len(missing)} genes are not in the reference, e.g. {missing[:3]}; choose from its var_names")
    blocks = [block[:, columns] for block in log_normalized_blocks(reference, layer)]
    return scipy.sparse.vstack(blocks, format="csr"), np.asarray(names, dtype=object)


def _average(profiles: "csr_matrix", index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    from scipy.sparse import csr_matrix

    starts = np.arange(0, index.size + 1, index.shape[1])
    mixing = csr_matrix((weight.ravel(), index.ravel(), starts), shape=(len(index), profiles.shape[0]))
    return (mixing @ profiles).toarray()
