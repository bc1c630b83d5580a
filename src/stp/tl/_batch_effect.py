"""Measure batch effects of embeddings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp import metrics
from stp.tables import keys
from stp.tables.embeddings import read_embedding
from stp.tables.table import as_list, has_value, record, require_column, table_to_annotate

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
    """Measure how well embeddings predict the slide or patient of a spot, compared with its label.

    Parameters
    ----------
    adata
        Table of several slides with embeddings.
    batch_key
        Column of `obs` with slides or patients. Spots without one (missing or "") are ignored.
    label_key
        Column of `obs` with tissue labels. For each batch, a classifier trained on the other
        batches predicts them. Spots without a label are ignored.
    slide_key
        Column of `obs` with slides. Pass it if the batches are patients with several slides: a
        classifier trained on other slides then predicts the patient of a slide. Spots without a
        slide are ignored.
    use_reps
        Names of the embeddings in `obsm`.
    seed
        Random seed for the folds that are used without `slide_key`.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_batch_effect' | key_added]` : dict
        `params`; `scores`, one row per embedding with the values of
        :func:`stp.metrics.batch_effect`, and with `label_key` those of
        :func:`stp.metrics.label_transfer`.

    Raises
    ------
    KeyError
        A column or an embedding is missing.
    ValueError
        There is only one batch or one label, or an embedding has infinite values.

    Examples
    --------
    >>> both = stp.get.concat(["demo/stores/train_0.zarr", "demo/stores/train_1.zarr"])
    >>> stp.tl.tokenize(both, model)
    >>> stp.tl.embed_genes(both, model)
    >>> stp.tl.batch_effect(both, "slide", use_reps=["X_stp_genes"])
    >>> "stp_batch_effect" in both.uns
    True
    """
    import pandas as pd

    adata = table_to_annotate(adata, table_key, copy)
    use_reps = as_list(use_reps)
    batches = _read_column(adata, batch_key, "batch_key")
    _check_batches(batches, batch_key)
    labels = None if label_key is None else _read_column(adata, label_key, "label_key")
    slides = None if slide_key is None else _read_column(adata, slide_key, "slide_key")
    scores = {}
    for rep in use_reps:
        embedding = read_embedding(adata, rep)
        scores[rep] = _score(embedding, batches, labels, slides, seed)
    params = {
        "batch_key": batch_key,
        "label_key": label_key,
        "slide_key": slide_key,
        "use_reps": use_reps,
        "seed": seed,
    }
    table = pd.DataFrame.from_dict(scores, orient="index")
    record(adata, key_added, params, scores=table)
    return adata if copy else None


class _Column(NamedTuple):
    """A column of `obs` with names."""

    names: np.ndarray  # (n_obs,) str
    has_name: np.ndarray  # (n_obs,) bool: False for a name that is missing or ""


def _read_column(adata: "AnnData", key: str, argument: str) -> _Column:
    """Return a column of `obs`, or raise a KeyError that names the argument."""
    column = require_column(adata, key, argument)
    return _Column(column.astype(str).to_numpy(), has_value(column))


def _check_batches(batches: _Column, batch_key: str) -> None:
    """Raise ValueError if there are fewer than two batches."""
    names = np.unique(batches.names[batches.has_name])
    if len(names) < 2:
        value = repr(str(names[0])) if len(names) else "missing"
        raise ValueError(
            f"obs[{batch_key!r}] is {value} everywhere; a batch effect needs two batches"
        )


def _score(
    embedding: np.ndarray,
    batches: _Column,
    labels: _Column | None,
    slides: _Column | None,
    seed: int,
) -> dict[str, float]:
    """Score one embedding on the spots that have all that is needed."""
    usable = np.isfinite(embedding).all(axis=1) & batches.has_name
    if slides is not None:
        usable &= slides.has_name
    scores = metrics.batch_effect(
        embedding[usable],
        batches.names[usable],
        slides=None if slides is None else slides.names[usable],
        seed=seed,
    )
    if labels is not None:
        usable &= labels.has_name
        scores |= metrics.label_transfer(
            embedding[usable], labels.names[usable], batches.names[usable]
        )
    return scores
