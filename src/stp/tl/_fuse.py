"""Fuse embeddings of genes and images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.embeddings import read_embedding
from stp.tables.provenance import model_of, require_one_model
from stp.tables.table import as_list, record, table_to_annotate

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
    if scale:
        embeddings = [_scale(embedding) for embedding in embeddings]
    fused = np.concatenate(embeddings, axis=1).astype(np.float32)
    fused[np.isnan(fused).any(axis=1)] = np.nan
    adata.obsm[key_added] = fused
    params = {"use_reps": use_reps, "scale": scale}
    record(adata, key_added, params, model=shared_model)
    return adata if copy else None


def _scale(embedding: np.ndarray) -> np.ndarray:
    """Divide an embedding (n_obs, d) by the mean norm of its spots."""
    return embedding / np.nanmean(np.linalg.norm(embedding, axis=1))
