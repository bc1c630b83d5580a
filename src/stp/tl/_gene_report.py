"""Report which genes of a table were recognized: in `uns`, in the log and in warnings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp._log import count, logger, preview, warn
from stp.genes.matches import Names

if TYPE_CHECKING:
    import pandas as pd

MIN_PANEL_GENES = 1000  # among fewer genes, ranks say little
MIN_MEDIAN_TOKENS = 100  # training leaves out spots with fewer tokens too
MAX_UNMAPPED_NAMES = 100


class GeneReport(NamedTuple):
    """Which names were recognized, by which rule, and which were not."""

    rules: "pd.DataFrame"  # one row per rule: number of names and their share of all UMIs
    unmapped: "pd.DataFrame"  # one row per name: rule, note and share of UMIs


def warn_about_spots(
    n_tokens: np.ndarray, context_length: int, n_genes: int, n_vocabulary: int
) -> None:
    """Warn if the panel is small, spots are shallow, or spots are empty.

    Parameters
    ----------
    n_tokens
        Number of tokens of each spot, (n_obs,).
    context_length
        Highest possible number of tokens of a spot.
    n_genes
        Number of genes of the vocabulary that the table measures.
    n_vocabulary
        Number of genes in the vocabulary.
    """
    is_small_panel = n_genes < min(MIN_PANEL_GENES, n_vocabulary / 2)
    if is_small_panel:
        warn(
            f"the table measures {n_genes} of the {n_vocabulary} genes: ranks among so few depend "
            "on the choice of the panel, and embeddings of different panels are not comparable"
        )
    elif n_genes >= MIN_PANEL_GENES and len(n_tokens):
        median = np.median(n_tokens)
        if median < min(MIN_MEDIAN_TOKENS, context_length):
            warn(
                f"the median spot has {median:.0f} genes, so its ranks are mostly ties; "
                "if this is Visium HD, use larger bins (8 or 16 µm)"
            )
    n_empty = int(np.count_nonzero(n_tokens == 0))
    if n_empty:
        warn(
            f"{n_empty:,} of {count(len(n_tokens), 'spot')} have no counts and get no embedding "
            "(NaN); sc.pp.filter_cells(adata, min_counts=1) drops such spots"
        )


def gene_report(names: np.ndarray, matches: Names, umis: np.ndarray) -> GeneReport:
    """Report by which rule gene names were recognized, and which names were not.

    Parameters
    ----------
    names
        Gene names of a table, (n_names,).
    matches
        Gene of each name, (n_names,).
    umis
        UMIs of each name, 0 for those that are no genes, (n_names,).

    Returns
    -------
    All rules, most frequent first, and the names without a gene, most expressed first: at most 100
    of them, and all ambiguous ones.
    """
    import pandas as pd

    columns = {
        "rule": matches.rule.astype(str),
        "note": matches.note.astype(str),
        "umis": umis / max(int(umis.sum()), 1),
    }
    table = pd.DataFrame(columns, index=pd.Index(np.asarray(names, str), name="gene"))
    rules = table.groupby("rule").agg(names=("rule", "size"), umis=("umis", "sum"))
    without_gene = table[matches.index < 0].sort_values("umis", ascending=False, kind="stable")
    is_ambiguous = (without_gene["rule"] == "ambiguous").to_numpy()
    is_among_first = np.arange(len(without_gene)) < MAX_UNMAPPED_NAMES
    return GeneReport(
        rules.sort_values("names", ascending=False, kind="stable"),
        without_gene[is_among_first | is_ambiguous],
    )


def log_summary(
    slides: Sequence[str],
    symbols: Mapping[str, str],
    matches: Names,
    unmapped: "pd.DataFrame",
    coverage: float,
    n_tokens: np.ndarray,
) -> None:
    """Log how many genes were recognized, and the most expressed names that were not.

    Parameters
    ----------
    slides
        Names of the slides, as far as they have names.
    symbols
        Symbol of each name in the table, "" if it is not known.
    matches
        Gene of each name in the table, (n_names,).
    unmapped
        Names without a gene and their rule, most expressed first, as `gene_report` returns them.
    coverage
        Share of UMIs in genes of the vocabulary.
    n_tokens
        Number of tokens of each spot, (n_obs,).
    """
    n_genes = len(matches.index)
    n_recognized = np.count_nonzero(matches.index >= 0)
    of_slides = f" of {preview(slides)}" if slides else ""
    median = np.median(n_tokens) if len(n_tokens) else 0
    message = (
        f"Tokenized {count(len(n_tokens), 'spot')}{of_slides}: "
        f"{n_recognized:,} of {count(n_genes, 'gene')} recognized "
        f"({100 * coverage:.4g} % of UMIs), median {median:.0f} tokens per spot"
    )
    if len(unmapped):
        most_expressed = unmapped["rule"].head(5).items()
        examples = ", ".join(f"{symbols[name] or name} ({rule})" for name, rule in most_expressed)
        message += f". Most expressed genes that were not recognized: {examples}"
    logger.info(message)
