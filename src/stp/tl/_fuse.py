"""Fuse embeddings of genes and images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.embeddings import read_embedding
from stp.tables.provenance import model_of, require_one_model
from stp.tables.table import as_list, record, table_to_annotate

BLOCK_ROWS = 8192  # spots that are joined at a time

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def fuse(
    adata: "AnnData | SpatialData",
    *,
    use_reps: str | Sequence[str] = (keys.GENES, keys.IMAGES),
    scale: bool = False,
    table_key: str = "table",
    key_added: str = keys.FUSED,
    copy: bool = False,
) -> "AnnData | None":
    """Concatenate embeddings of genes and images (paper, STAMP_F).

    Parameters
    ----------
    adata
        Table with the embeddings.
    use_reps
        Names of the embeddings in `obsm`.
    scale
        Divide each embedding by its mean norm first, so that all of them weigh the same.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_fused' | key_added]` : (n, sum of widths) float32
        The embeddings next to each other. NaN for spots that lack one of them.
    `adata.uns['X_stp_fused' | key_added]` : dict
        `params`; `model` that made the embeddings, None if no model of stp did; `version` of stp.

    Raises
    ------
    KeyError
        An embedding is missing.
    ValueError
        Models of stp that made the embeddings differ, `uns` does not record which they are, or an
        embedding has infinite values.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.fuse(sdata)
    >>> sdata.tables["table"].obsm["X_stp_fused"].shape[1]
    192
    """
    adata = table_to_annotate(adata, table_key, copy)
    use_reps = as_list(use_reps)
    embeddings = [read_embedding(adata, rep) for rep in use_reps]
    models = {f"obsm[{rep!r}]": model_of(adata, rep) for rep in use_reps}
    stp_models = {label: model for label, model in models.items() if model is not None}
    shared_model = require_one_model(stp_models)
    divisors = [_mean_norm(embedding) if scale else None for embedding in embeddings]
    adata.obsm[key_added] = _concatenate(embeddings, divisors)
    params = {"use_reps": use_reps, "scale": scale}
    record(adata, key_added, params, model=shared_model)
    return adata if copy else None


def _concatenate(
    embeddings: Sequence[np.ndarray], divisors: Sequence[np.floating | None]
) -> np.ndarray:
    """Return the quotients of embeddings next to each other; rows that lack one are NaN.

    Only a block of rows is copied at a time.
    """
    n_obs = len(embeddings[0])
    fused = np.empty((n_obs, sum(embedding.shape[1] for embedding in embeddings)), np.float32)
    for start in range(0, n_obs, BLOCK_ROWS):
        rows = fused[start : start + BLOCK_ROWS]
        first = 0
        for embedding, divisor in zip(embeddings, divisors, strict=True):
            block = embedding[start : start + BLOCK_ROWS]
            last = first + block.shape[1]
            rows[:, first:last] = block if divisor is None else block / divisor
            first = last
        rows[np.isnan(rows).any(axis=1)] = np.nan
    return fused


def _mean_norm(embedding: np.ndarray) -> np.floating:
    """Return the mean norm of the spots of an embedding (n_obs, d)."""
    norms = [
        np.linalg.norm(embedding[start : start + BLOCK_ROWS], axis=1)
        for start in range(0, len(embedding), BLOCK_ROWS)
    ]
    return np.nanmean(np.concatenate(norms))
