"""Rank the genes of every spot into tokens."""

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.genes.coverage import check_coverage, sum_by_rule
from stp.genes.gene_lookup import GeneLookup
from stp.genes.rank_table import RankTable, rank_table
from stp.genes.table_genes import recognize_table
from stp.genes.tokens import rank_genes
from stp.genes.vocabulary import Vocabulary
from stp.models.saved.description import CONFIG, read_description
from stp.models.saved.pretrained import VOCABULARY
from stp.tables import keys
from stp.tables.counts import get_counts
from stp.tables.references import slides_of
from stp.tables.table import record, table_to_annotate
from stp.tables.whole_counts import with_whole_counts
from stp.tl._gene_report import gene_report, log_summary, warn_about_spots
from stp.tl._table_tokens import rank_all_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

CONTEXT_LENGTH = 1500  # the paper's


def tokenize(
    adata: "AnnData | SpatialData",
    vocabulary: "Vocabulary | Any | str | Path",
    *,
    layer: str | None = None,
    gene_ids_key: str | None = "auto",
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
        Vocabulary with gene means, made by `Vocabulary.fit`; or a model, whose vocabulary is used;
        or the path of either.
    layer
        Layer with the raw counts; by default `X`.
    gene_ids_key
        Column of `var` with gene names; None for `var_names`; by default `gene_ids` if it
        holds Ensembl ids, else `var_names`.
    context_length
        Number of genes that are kept per spot; by default as many as the model reads, or the 1,500
        of the paper if there is only a vocabulary.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_tokens' | key_added]` : (n, n_tokens) uint16
        Tokens, padded with 0 to the number of tokens of the spot that has the most, at most
        `context_length`. A Dask array if the counts are one.
    `adata.obs['stp_tokens_n' | key_added + '_n']` : int
        Number of tokens per spot; 0 for a spot without counts.
    `adata.uns['stp_tokens' | key_added]` : dict
        `params`, with the digest of the vocabulary; `coverage`, the share of UMIs in its genes;
        `n_genes`, the number of columns that are in it; `rules`, how many names each rule
        recognized and their share of UMIs; `unmapped`, the most expressed names that no rule
        recognized, and why.
        Antibodies and control probes are no genes, and have no share in the coverage.

    Notes
    -----
    Gene names may be Ensembl ids, with or without version, current symbols, aliases or previous
    symbols, also mixed. The logger "stp" writes one line that sums up what was recognized.
    `NUMBA_NUM_THREADS` sets the number of threads.

    Raises
    ------
    ValueError
        The vocabulary has no means or is of another species, the counts are not raw, no gene is
        recognized, or less than half of the UMIs are in genes of the vocabulary.

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
    training = _training(vocabulary)
    vocabulary = _vocabulary(vocabulary)
    genes = recognize_table(vocabulary, adata, gene_ids_key)
    matches = genes.matches
    is_mapped = matches.index >= 0
    # Dask sends this call to its workers, so it carries small arrays and no vocabulary.
    rank = partial(
        rank_genes,
        index=matches.index,
        table=_rank_table(vocabulary.divisors().tobytes()),
        n_special=vocabulary.n_special,
    )
    rank_all = partial(
        rank_all_genes, rank=rank, index=matches.index, context_length=context_length
    )
    ranks = with_whole_counts(get_counts(adata, layer), rank_all)
    # What is no gene has no share in the coverage.
    umis = np.where(genes.is_gene, ranks.umis, 0)
    coverage = check_coverage(
        sum_by_rule(matches.rule[~is_mapped], umis[~is_mapped]),
        int(umis.sum()),
        n_genes=len(vocabulary),
        training=training,
    )
    n_genes = len(np.unique(matches.index[is_mapped]))
    warn_about_spots(ranks.n_tokens, context_length, n_genes, len(vocabulary))
    report = gene_report(genes.names, matches, umis)
    symbols = dict(zip(genes.names, GeneLookup(adata).symbols, strict=True))
    log_summary(slides_of(adata), symbols, matches, report.unmapped, coverage, ranks.n_tokens)
    adata.obsm[key_added] = ranks.tokens
    adata.obs[keys.n_tokens(key_added)] = ranks.n_tokens
    params = {
        "layer": layer,
        "gene_ids_key": gene_ids_key,
        "context_length": context_length,
        "ties": "ascending vocabulary index",
        "vocabulary": vocabulary.digest,
    }
    record(
        adata,
        key_added,
        params,
        coverage=coverage,
        n_genes=int(is_mapped.sum()),
        rules=report.rules,
        unmapped=report.unmapped,
    )
    return adata if copy else None


@lru_cache(maxsize=1)
def _rank_table(divisors: bytes) -> RankTable:
    """Return the rank table of these divisors.

    The last one is cached, because the sections of a collection are tokenized one after the other
    with the same gene means.
    """
    return rank_table(np.frombuffer(divisors).copy())


def _training(source: Any) -> str | None:
    """Return what a model, or the model in a folder, was trained on; None if it is no model."""
    if isinstance(source, str | Path):
        file = Path(source) / CONFIG
        if not file.is_file():
            return None
        card = read_description(file).get("card") or {}
        return "; ".join(card.get("trained_on", ()))
    card = getattr(source, "card", None)
    return None if card is None else "; ".join(card.trained_on)


def _context_length(source: Any) -> int:
    """Return how many genes a model, or the model in a folder, reads per spot."""
    if isinstance(source, str | Path):
        file = Path(source) / CONFIG
        config: Any = read_description(file)["config"] if file.is_file() else {}
        gene_config = config.get("gene") or config
        return gene_config.get("context_length", CONTEXT_LENGTH)
    encoder = getattr(source, "gene_encoder", None) or source
    config = getattr(encoder, "config", None)
    return getattr(config, "context_length", CONTEXT_LENGTH)


def _vocabulary(source: Any) -> Vocabulary:
    """Return a vocabulary: the source itself, that of a model, or that in a file or folder."""
    if isinstance(source, str | Path):
        path = Path(source)
        file = path / VOCABULARY if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"no vocabulary at {file}; give a file of Vocabulary.save, or the folder of a "
                "model that reads genes"
            )
        return Vocabulary.load(file)
    vocabulary = getattr(source, "vocabulary", source)
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(
            f"expected a Vocabulary, a model or a path, got {type(vocabulary).__name__}"
        )
    return vocabulary
