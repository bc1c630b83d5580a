"""Rank the genes of every spot into tokens."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import _keys
from stp._table import begin, count_blocks, gene_names, get_counts, record
from stp.tokens import rank_genes, to_vocabulary
from stp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

WARN_BELOW, REFUSE_BELOW = 0.8, 0.5  # share of UMIs in genes of the vocabulary


def tokenize(
    adata: "AnnData | SpatialData",
    vocabulary: "Vocabulary | Any | str | Path",
    *,
    layer: str | None = None,
    gene_ids_key: str | None = None,
    context_length: int = 1500,
    table_key: str = "table",
    key_added: str = _keys.TOKENS,
    copy: bool = False,
) -> "AnnData | None":
    """Rank the detected genes of each spot by count / mean, highest first (paper, Algorithm 1).

    Parameters
    ----------
    adata
        Table with raw integer counts.
    vocabulary
        A :class:`~stp.Vocabulary` with means, a model (its own vocabulary), or the path of either.
    layer
        Layer of the raw counts; X by default.
    gene_ids_key
        Column of `var` with gene ids; `var_names` by default. Ensembl ids, with or without version, current
        symbols, aliases and previous symbols are understood, also mixed.
    context_length
        Genes kept per spot.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_tokens' | key_added]` : (n_obs, context_length) uint16
        Tokens, padded with 0.
    `adata.obs['stp_tokens_n' | key_added + '_n']` : int
        Tokens per spot; 0 flags a spot without counts.
    `adata.uns['stp_tokens' | key_added]` : dict
        `params`, with the digest of the vocabulary; `coverage`, the share of UMIs in its genes.

    Raises
    ------
    ValueError
        The vocabulary has no means, the counts are not raw, no gene is known, or less than half of the UMIs are.
    """
    if context_length < 1:
        raise ValueError(f"context_length must be positive, not {context_length}")
    adata = begin(adata, table_key, copy)
    vocabulary = _vocabulary(vocabulary)
    divisors, index = vocabulary.divisors(), _index(adata, vocabulary, gene_ids_key)
    get_counts(adata, layer)
    tokens = np.zeros((adata.n_obs, context_length), dtype=np.uint16)
    start, known, total = 0, 0.0, 0.0
    for block in count_blocks(adata, layer):
        counts = to_vocabulary(block, index, len(vocabulary))
        known, total = known + counts.data.sum(dtype=float), total + block.data.sum(dtype=float)
        tokens[start : start + block.shape[0]] = rank_genes(
            counts, divisors, context_length=context_length, n_special=vocabulary.n_special
        )
        start += block.shape[0]
    coverage = _check_coverage(known, total)
    adata.obsm[key_added] = tokens
    adata.obs[_keys.n_tokens(key_added)] = (tokens > 0).sum(axis=1)
    _warn_of_empty(adata.obs[_keys.n_tokens(key_added)])
    params = {
        "layer": layer,
        "gene_ids_key": gene_ids_key,
        "context_length": context_length,
        "ties": "ascending vocabulary index",
        "vocabulary": vocabulary.digest,
    }
    record(adata, key_added, params, coverage=coverage, n_genes=int((index >= 0).sum()))
    return adata if copy else None


def _vocabulary(source: Any) -> Vocabulary:
    """Return a vocabulary given as such, as a model that has one, or as the path of either."""
    if isinstance(source, str | Path):
        path = Path(source)
        return Vocabulary.load(path / "vocabulary.parquet" if path.is_dir() else path)
    source = getattr(source, "vocabulary", source)
    if not isinstance(source, Vocabulary):
        raise TypeError(f"expected a Vocabulary, a model or a path, got {type(source).__name__}")
    return source


def _index(adata: "AnnData", vocabulary: Vocabulary, gene_ids_key: str | None) -> np.ndarray:
    names = gene_names(adata, gene_ids_key)
    index = vocabulary.encode(names)
    if not (index >= 0).any():
        raise ValueError(
            f"no gene of the table is in the vocabulary: the table has {', '.join(map(str, names[:3]))}, "
            f"the vocabulary {', '.join(vocabulary.gene_ids[:3])}; pass gene_ids_key= one of {list(adata.var)}, "
            "or a vocabulary of the species, Vocabulary.from_genes(gene_ids, symbols)"
        )
    return index


def _check_coverage(known: float, total: float) -> float:
    coverage = known / total if total else 1.0
    message = f"only {coverage:.1%} of UMIs are in genes of the vocabulary; check species, gene names and gene_ids_key="
    if coverage < REFUSE_BELOW:
        raise ValueError(message)
    if coverage < WARN_BELOW:
        warnings.warn(message, stacklevel=3)
    return coverage


def _warn_of_empty(n_tokens: Any) -> None:
    empty = int((n_tokens == 0).sum())
    if empty:
        warnings.warn(
            f"{empty} spots have no counts and get no embedding (NaN); "
            "sc.pp.filter_cells(adata, min_counts=1) drops them",
            stacklevel=3,
        )
