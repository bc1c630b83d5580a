"""Rank the genes of every spot into tokens."""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.genes.rank_table import RankTable, rank_table
from stp.genes.tokens import rank_genes
from stp.genes.vocabulary import Vocabulary
from stp.models.saved.pretrained import CONFIG
from stp.tables import keys
from stp.tables.counts import as_csr, get_counts, is_lazy, row_blocks
from stp.tables.table import gene_names, record, table_to_annotate
from stp.tl._gene_report import check_coverage, gene_report, log_summary, warn_of_spots

CONTEXT_LENGTH = 1500

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def tokenize(
    adata: "AnnData | SpatialData",
    vocabulary: "Vocabulary | Any | str | Path",
    *,
    layer: str | None = None,
    gene_ids_key: str | None = None,
    context_length: int | None = None,
    table_key: str = "table",
    key_added: str = keys.TOKENS,
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
        Column of `var` with gene ids; by default `gene_ids` where that holds Ensembl ids, `var_names` otherwise.
        Ensembl ids, with or without version, current symbols, aliases and previous symbols are understood, also mixed.
    context_length
        Genes kept per spot; by default as many as the model reads, or 1,500 (the paper's) with a vocabulary alone.
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
        Tokens, padded with 0; a Dask array where the counts are one.
    `adata.obs['stp_tokens_n' | key_added + '_n']` : int
        Tokens per spot; 0 flags a spot without counts.
    `adata.uns['stp_tokens' | key_added]` : dict
        `params`, with the digest of the vocabulary; `coverage`, the share of UMIs in its genes; `rules`, how many
        names were recognized by which rule; `unmapped`, the most expressed names that were not, and why.

    Notes
    -----
    What was understood is logged in a line by the logger "stp". As many threads work as numba is allowed
    (`NUMBA_NUM_THREADS`).

    Raises
    ------
    ValueError
        The vocabulary has no means or is of another species, the counts are not raw, no gene is known, or less than
        half of the UMIs are.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> sdata.tables["table"].obsm["stp_tokens"].dtype
    dtype('uint16')
    """
    if context_length is None:
        context_length = _context_length(vocabulary)
    if context_length < 1:
        raise ValueError(f"context_length must be positive, not {context_length}")
    adata = table_to_annotate(adata, table_key, copy)
    vocabulary = _vocabulary(vocabulary)
    names = gene_names(adata, gene_ids_key)
    found, table = vocabulary.recognize(names), _table(vocabulary.divisors().tobytes())
    X = get_counts(adata, layer)
    # Nothing else, for Dask sends it to its workers.
    arguments: dict[str, Any] = {
        "index": found.index,
        "table": table,
        "n_special": vocabulary.n_special,
    }
    rank = partial(rank_genes, context_length=context_length, **arguments)
    tokens, n_tokens, unmapped, mapped = (_rank_lazily if is_lazy(X) else _rank)(
        X, rank, context_length
    )
    total = int(mapped + unmapped.sum())
    coverage = check_coverage(unmapped, total, found)
    warn_of_spots(
        n_tokens, context_length, len(np.unique(found.index[found.index >= 0])), len(vocabulary)
    )
    report = gene_report(names, found, unmapped, total)
    log_summary(key_added, found, report, coverage, n_tokens)
    adata.obsm[key_added] = tokens
    adata.obs[keys.n_tokens(key_added)] = n_tokens
    params = {
        "layer": layer,
        "gene_ids_key": gene_ids_key,
        "context_length": context_length,
        "ties": "ascending vocabulary index",
        "vocabulary": vocabulary.digest,
    }
    record(
        adata, key_added, params, coverage=coverage, n_genes=int((found.index >= 0).sum()), **report
    )
    return adata if copy else None


@lru_cache(maxsize=1)
def _table(divisors: bytes) -> RankTable:
    """Keep the last table: sections of a collection are tokenized one after the other, by the same means."""
    return rank_table(np.frombuffer(divisors).copy())


def _rank(
    X: Any, rank: Callable, context_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rank block by block; returns tokens, their number per spot, UMIs of each unmapped column, and of all others."""
    tokens = np.zeros((X.shape[0], context_length), dtype=np.uint16)
    n_tokens, unmapped, mapped, start = (
        np.zeros(X.shape[0], np.int64),
        np.zeros(X.shape[1], np.int64),
        0,
        0,
    )
    for block in row_blocks(X):
        rows = slice(start, start + block.shape[0])
        ranked = rank(block, out=tokens[rows])
        n_tokens[rows] = ranked.n_tokens
        unmapped, mapped, start = (
            unmapped + ranked.unmapped,
            mapped + ranked.mapped.sum(),
            rows.stop,
        )
        del block, ranked  # or they would stay until the next block is read
    return tokens, n_tokens, unmapped, mapped


def _rank_lazily(
    X: Any, rank: Callable, context_length: int
) -> tuple[Any, np.ndarray, np.ndarray, int]:
    """Do the same with Dask: all but the tokens in one pass over the chunks, tokens when they are asked for."""
    import dask
    import dask.array

    def tokens_of(block: Any) -> np.ndarray:
        return rank(as_csr(block)).tokens

    def rest_of(block: Any) -> tuple[np.ndarray, np.ndarray, int]:
        ranked = rank(as_csr(block))
        return ranked.n_tokens, ranked.unmapped, ranked.mapped.sum()

    rests = dask.compute(*[dask.delayed(rest_of)(block) for block in X.to_delayed().ravel()])
    n_tokens, unmapped, mapped = zip(*rests, strict=True)
    tokens = X.map_blocks(
        tokens_of,
        chunks=(X.chunks[0], (context_length,)),
        dtype=np.uint16,
        meta=np.empty((0, 0), np.uint16),
    )
    return tokens, np.concatenate(n_tokens), sum(unmapped), sum(mapped)


def _context_length(source: Any) -> int:
    """Return how many genes a model reads, given as such or as its folder."""
    if isinstance(source, str | Path):
        file = Path(source) / CONFIG
        config: Any = json.loads(file.read_text())["config"] if file.is_file() else {}
        return (config.get("gene") or config).get("context_length", CONTEXT_LENGTH)
    genes = getattr(source, "gene_encoder", None) or source
    return getattr(getattr(genes, "config", None), "context_length", CONTEXT_LENGTH)


def _vocabulary(source: Any) -> Vocabulary:
    """Return a vocabulary given as such, as a model that has one, or as the path of either."""
    if isinstance(source, str | Path):
        path = Path(source)
        return Vocabulary.load(path / "vocabulary.parquet" if path.is_dir() else path)
    source = getattr(source, "vocabulary", source)
    if not isinstance(source, Vocabulary):
        raise TypeError(f"expected a Vocabulary, a model or a path, got {type(source).__name__}")
    return source
