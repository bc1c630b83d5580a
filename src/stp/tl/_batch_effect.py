"""Batch effects of embeddings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp import metrics
from stp.tables import keys
from stp.tables.table import as_list, has_value, record, require, require_column, table_to_annotate

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def batch_effect(
    adata: "AnnData | SpatialData",
    batch_key: str,
    *,
    label_key: str | None = None,
    slide_key: str | None = None,
    use_reps: str | Sequence[str] = (keys.GENES, keys.IMAGES),
    seed: int = 0,
    table_key: str = "table",
    key_added: str = keys.BATCH_EFFECT,
    copy: bool = False,
) -> "AnnData | None":
    """Tell how well slide or patient can be read off embeddings, beside the biology that they carry.

    Parameters
    ----------
    adata
        Table of several slides with embeddings.
    batch_key
        Slide or patient in `obs`; spots without one (missing or "") are left out.
    label_key
        Classes in `obs`, read in each batch from the others; spots without one are left out of this.
    slide_key
        Slides in `obs`, where batches are patients of several slides: a slide's patient is then read from other slides.
        Spots without one are left out.
    use_reps
        Embeddings in `obsm`.
    seed
        Of the random folds in which batches are read without `slide_key`.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_batch_effect' | key_added]` : dict
        `params`; `scores`, a row per embedding with the values of :func:`stp.metrics.batch_effect`.

    Raises
    ------
    KeyError
        A column or an embedding is missing.
    ValueError
        There is one batch or one class.

    Examples
    --------
    >>> import anndata
    >>> paths = ["demo/stores/train_0.zarr", "demo/stores/train_1.zarr"]
    >>> slides = {path: spatialdata.read_zarr(path).tables["table"] for path in paths}
    >>> for slide in slides.values():
    ...     stp.tl.tokenize(slide, model)
    ...     stp.tl.embed_genes(slide, model)
    >>> both = anndata.concat(slides, label="slide", uns_merge="same", index_unique="-")
    >>> stp.tl.batch_effect(both, "slide", use_reps=["X_stp_genes"])
    >>> "stp_batch_effect" in both.uns
    True
    """
    import pandas as pd

    adata, use_reps = table_to_annotate(adata, table_key, copy), as_list(use_reps)
    batches, placed = _names(adata, batch_key, "batch_key")
    if len(names := np.unique(batches[placed])) < 2:
        what = f"{str(names[0])!r} everywhere" if len(names) else "missing everywhere"
        raise ValueError(f"obs[{batch_key!r}] is {what}; a batch effect needs two batches")
    labels, labelled = (
        (None, placed) if label_key is None else _names(adata, label_key, "label_key")
    )
    slides, on_slide = (
        (None, placed) if slide_key is None else _names(adata, slide_key, "slide_key")
    )
    scores = {}
    for rep in use_reps:
        embedding = np.asarray(require(adata, "obsm", rep, keys.maker_call(rep)))
        known = np.isfinite(embedding).all(axis=1) & placed & on_slide
        of = None if slides is None else slides[known]
        scores[rep] = metrics.batch_effect(embedding[known], batches[known], slides=of, seed=seed)
        if labels is not None:
            known &= labelled
            scores[rep] |= metrics.label_transfer(embedding[known], labels[known], batches[known])
    params = {
        "batch_key": batch_key,
        "label_key": label_key,
        "slide_key": slide_key,
        "use_reps": use_reps,
    }
    record(
        adata,
        key_added,
        {**params, "seed": seed},
        scores=pd.DataFrame.from_dict(scores, orient="index"),
    )
    return adata if copy else None


def _names(adata: "AnnData", key: str, argument: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what a column names (n,), and which spots it names something for."""
    column = require_column(adata, key, argument)
    return column.astype(str).to_numpy(), has_value(column)
