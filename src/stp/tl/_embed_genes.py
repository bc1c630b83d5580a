"""Embed spots by their genes, and fuse embeddings."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp.models.device import choose_precision, inference
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.table import record, require, table_to_annotate
from stp.tl._embed_shared import EmbeddingBuffer, batches, model_record, progress_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def embed_genes(
    adata: "AnnData | SpatialData",
    model: Stamp | GeneEncoder,
    *,
    tokens_key: str = keys.TOKENS,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    table_key: str = "table",
    key_added: str = keys.GENES,
    copy: bool = False,
) -> "AnnData | None":
    """Embed spots by their genes (paper, section 3.2).

    Parameters
    ----------
    adata
        Table with tokens of the model's vocabulary.
    model
        A Stamp, or a GeneEncoder: then features only.
    tokens_key
        Tokens in `obsm`, made by :func:`stp.tl.tokenize`.
    batch_size
        Spots at a time.
    device
        A torch device; by default a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar on a terminal.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_genes' | key_added]` : (n_obs, width) float32
        Features before projection: for probes, clustering, regression. NaN for spots without tokens.
    `adata.obsm['X_stp_genes_aligned' | key_added + '_aligned']` : (n_obs, projection width) float32
        Unit vectors after projection: for retrieval. Only with a Stamp.
    `adata.uns['X_stp_genes' | key_added]` : dict
        `params`, with the precision used; `model`: its name, class, digest and the digest of its vocabulary;
        `version` of stp.

    Raises
    ------
    KeyError
        There are no tokens.
    ValueError
        The tokens were made with another vocabulary, or nothing says with which.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> sdata.tables["table"].obsm["X_stp_genes"].shape[1]
    64
    """
    adata = table_to_annotate(adata, table_key, copy)
    tokens = np.asarray(require(adata, "obsm", tokens_key, "stp.tl.tokenize(adata, model)"))
    _check_vocabulary(adata, tokens_key, model)
    _check_width(tokens, model)
    lengths = (tokens > 0).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    results, made_by = EmbeddingBuffer(adata.n_obs), model_record(model)
    with inference(model, device, precision) as chosen:
        for rows in progress_of(batches(order, batch_size), len(order), "embed_genes", progress):
            batch = torch.from_numpy(tokens[rows].astype(np.int64)).to(chosen)
            results.add(
                rows, model.encode_genes(batch) if isinstance(model, Stamp) else (model(batch),)
            )
    results.write(adata, key_added)
    params = {"tokens_key": tokens_key, "precision": choose_precision(chosen, precision)}
    record(adata, key_added, params, model=made_by)
    return adata if copy else None


def _check_width(tokens: np.ndarray, model: Stamp | GeneEncoder) -> None:
    config, width = model.config.gene if isinstance(model, Stamp) else model.config, tokens.shape[1]
    if (
        config is not None
        and width < config.context_length
        and (cut_off := np.count_nonzero(tokens[:, -1]))
    ):
        warnings.warn(
            f"of {cut_off} spots only the first {width} genes were kept, and the model reads {config.context_length}; "
            "run stp.tl.tokenize(adata, model) again",
            stacklevel=3,
        )


def _check_vocabulary(adata: "AnnData", tokens_key: str, model: Stamp | GeneEncoder) -> None:
    made_with = adata.uns.get(tokens_key, {}).get("params", {}).get("vocabulary")
    if made_with is None:
        raise ValueError(
            f"nothing says with which vocabulary obsm[{tokens_key!r}] was made: anndata.concat loses it unless "
            'uns_merge="same" is passed, and then, too, where they differ; run stp.tl.tokenize(adata, model) again'
        )
    if made_with != model.vocabulary.digest:
        raise ValueError(
            f"the tokens in obsm[{tokens_key!r}] were made with another vocabulary than the model's; "
            "run stp.tl.tokenize(adata, model) again"
        )
