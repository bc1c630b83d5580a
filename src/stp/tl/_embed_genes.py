"""Embed spots by their genes."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import warn
from stp.models.device import choose_precision, inference
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.table import record, require, table_to_annotate
from stp.tl._embed_shared import (
    Computing,
    EmbeddingBuffer,
    EmbeddingParts,
    batches,
    model_record,
    show_progress,
)

BLOCK_ROWS = 8192  # spots whose tokens are counted at a time

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
        Table with tokens that :func:`stp.tl.tokenize` made with the vocabulary of the model.
    model
        A Stamp, or a GeneEncoder, which returns features only.
    tokens_key
        Name of the tokens in `obsm`.
    batch_size
        Number of spots per batch.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_genes' | key_added]` : (n, width) float32
        Features before projection, for probes, clustering and regression. NaN for spots without
        tokens.
    `adata.obsm['X_stp_genes_aligned' | key_added + '_aligned']` : (n, projection width) float32
        Unit vectors after projection, for retrieval. Only with a Stamp.
    `adata.uns['X_stp_genes' | key_added]` : dict
        `params`, with the precision used; `model`: its name, class, digest and the digest of its
        vocabulary; `version` of stp.

    Raises
    ------
    KeyError
        There are no tokens.
    TypeError
        The model is neither a Stamp nor a GeneEncoder.
    ValueError
        The tokens were made with another vocabulary, `uns` does not record with which, or features
        are NaN or infinite.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> sdata.tables["table"].obsm["X_stp_genes"].shape[1]
    64
    """
    if not isinstance(model, Stamp | GeneEncoder):
        raise TypeError(
            f"expected a Stamp or a GeneEncoder, got {type(model).__name__}; stp.tl.embed_images "
            "embeds with encoders of images"
        )
    adata = table_to_annotate(adata, table_key, copy)
    computing = Computing(batch_size, device, precision, progress)
    annotate_by_genes(adata, model, tokens_key=tokens_key, key_added=key_added, computing=computing)
    return adata if copy else None


def annotate_by_genes(
    adata: "AnnData",
    model: Stamp | GeneEncoder,
    *,
    tokens_key: str,
    key_added: str,
    computing: Computing,
    parts: EmbeddingParts | None = None,
) -> None:
    """Write the embeddings of spots by their genes into a table; see `embed_genes`.

    Parameters
    ----------
    adata
        Table with tokens, which is changed.
    model
        A Stamp, or a GeneEncoder, which returns features only.
    tokens_key
        Name of the tokens in `obsm`.
    key_added
        Name under which the results are stored.
    computing
        How the embeddings are computed.
    parts
        What was embedded before, and where batches are saved; None saves nothing.
    """
    tokens = np.asarray(require(adata, "obsm", tokens_key, "stp.tl.tokenize(adata, model)"))
    _check_vocabulary(adata, tokens_key, model)
    lengths = _count_tokens(tokens)
    _check_width(adata, tokens_key, tokens)
    context_length = _context_length(adata, tokens_key, tokens)
    _warn_if_cut(lengths, context_length, model)
    rows_by_length = _sort_by_length(lengths)
    with inference(model, computing.device, computing.precision) as torch_device:
        used_precision = choose_precision(torch_device, computing.precision)
        embeddings = EmbeddingBuffer(adata.n_obs, model, used_precision, parts)
        n_restored = embeddings.restore()
        row_batches = batches(rows_by_length[n_restored:], computing.batch_size)
        for rows in show_progress(
            row_batches, len(rows_by_length), "embed genes", computing.progress, n_restored
        ):
            batch = torch.from_numpy(_pad(tokens[rows], context_length)).to(torch_device)
            embeddings.add(rows, _encode(model, batch))
    embeddings.write(adata, key_added)
    params = {"tokens_key": tokens_key, "precision": used_precision}
    record(adata, key_added, params, model=model_record(model))


def _check_vocabulary(adata: "AnnData", tokens_key: str, model: Stamp | GeneEncoder) -> None:
    """Raise ValueError unless the tokens were made with the vocabulary of the model."""
    digest = adata.uns.get(tokens_key, {}).get("params", {}).get("vocabulary")
    if digest is None:
        raise ValueError(
            f"uns does not record with which vocabulary obsm[{tokens_key!r}] was made: "
            "anndata.concat drops the record; combine the tables with stp.get.concat, which keeps "
            "it, or run stp.tl.tokenize(adata, model) again"
        )
    if digest != model.vocabulary.digest:
        raise ValueError(
            f"the tokens in obsm[{tokens_key!r}] were made with another vocabulary than the "
            "model's; run stp.tl.tokenize(adata, model) again"
        )


def _check_width(adata: "AnnData", tokens_key: str, tokens: np.ndarray) -> None:
    """Raise ValueError if columns of tokens were cut off or filled with NaN.

    `anndata.concat` does so to tables whose tokens have different widths.
    """
    n_tokens = adata.obs.get(keys.n_tokens(tokens_key))
    is_cut = n_tokens is not None and n_tokens.max() > tokens.shape[1]
    if is_cut or tokens.dtype.kind not in "ui":
        raise ValueError(
            f"obsm[{tokens_key!r}] has {tokens.shape[1]} columns of {tokens.dtype}, which are not "
            "the tokens of all its spots: anndata.concat cuts or fills tables of different width; "
            "combine the tables with stp.get.concat, or run stp.tl.tokenize(adata, model) again"
        )


def _context_length(adata: "AnnData", tokens_key: str, tokens: np.ndarray) -> int:
    """Return how many genes per spot tokenize kept at most."""
    params = adata.uns[tokens_key]["params"]
    return max(int(params.get("context_length", 0)), tokens.shape[1])


def _warn_if_cut(lengths: np.ndarray, context_length: int, model: Stamp | GeneEncoder) -> None:
    """Warn if spots have fewer tokens than they could, because tokenize cut them."""
    config = model.config.gene if isinstance(model, Stamp) else model.config
    if config is None or context_length >= config.context_length:
        return
    n_cut = np.count_nonzero(lengths == context_length)
    if n_cut:
        warn(
            f"the tokens of {n_cut} spots were cut: only the first {context_length} genes were "
            f"kept, and the model reads {config.context_length}; "
            "run stp.tl.tokenize(adata, model) again"
        )


def _count_tokens(tokens: np.ndarray) -> np.ndarray:
    """Return the number of tokens of each spot (n_obs,)."""
    lengths = np.zeros(len(tokens), np.int64)
    for start in range(0, len(tokens), BLOCK_ROWS):
        block = tokens[start : start + BLOCK_ROWS]
        lengths[start : start + len(block)] = (block > 0).sum(axis=1)
    return lengths


def _sort_by_length(lengths: np.ndarray) -> np.ndarray:
    """Return the rows that have tokens, shortest first, so that a batch has little padding."""
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def _pad(tokens: np.ndarray, width: int) -> np.ndarray:
    """Return the tokens (n, width) of a batch, padded with 0.

    Features then do not depend on the other spots of the table, not even in their last digit.
    """
    padded = np.zeros((len(tokens), width), dtype=np.int64)
    padded[:, : tokens.shape[1]] = tokens
    return padded


def _encode(model: Stamp | GeneEncoder, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return features (n, width), and with a Stamp the aligned vectors too."""
    if isinstance(model, Stamp):
        return model.encode_genes(tokens)
    return (model(tokens),)
