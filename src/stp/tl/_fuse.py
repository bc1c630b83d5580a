"""Fuse embeddings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.provenance import model_of, require_one_model
from stp.tables.table import as_list, record, require, table_to_annotate

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
        Their names in `obsm`.
    scale
        Divide each embedding by its mean norm first, so that none outweighs the others.
    table_key
        Table of a SpatialData.
    key_added
        Name of the result.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_fused' | key_added]` : (n_obs, sum of widths) float32
        The embeddings side by side.
    `adata.uns['X_stp_fused' | key_added]` : dict
        `params`; `model` that made the embeddings, None where it was none of stp; `version` of stp.

    Raises
    ------
    KeyError
        An embedding is missing.
    ValueError
        Embeddings of stp are of different models, or nothing says of which.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.fuse(sdata)
    >>> sdata.tables["table"].obsm["X_stp_fused"].shape[1]
    192
    """
    adata, use_reps = table_to_annotate(adata, table_key, copy), as_list(use_reps)
    blocks = [np.asarray(require(adata, "obsm", rep, keys.maker_call(rep))) for rep in use_reps]
    models = {f"obsm[{rep!r}]": model_of(adata, rep) for rep in use_reps}
    model = require_one_model(
        {label: made_by for label, made_by in models.items() if made_by is not None}
    )
    if scale:
        blocks = [block / np.nanmean(np.linalg.norm(block, axis=1)) for block in blocks]
    adata.obsm[key_added] = np.concatenate(blocks, axis=1).astype(np.float32)
    record(adata, key_added, {"use_reps": use_reps, "scale": scale}, model=model)
    return adata if copy else None
