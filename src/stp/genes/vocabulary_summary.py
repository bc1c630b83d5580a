"""The short description of a vocabulary, for a notebook."""

from collections.abc import Sequence

import numpy as np

from stp._log import preview
from stp._summary import Summary, summary_html


def vocabulary_html(gene_ids: np.ndarray, symbols: np.ndarray, means_text: str, digest: str) -> str:
    """Return a table: number of genes, the first ones, means and digest."""
    names = [symbol or gene_id for symbol, gene_id in zip(symbols, gene_ids, strict=True)]
    rows = {
        "genes": f"{len(names):,}",
        "first genes": preview(names),
        "means": means_text,
        "digest": digest[:12],
    }
    return summary_html(Summary("Vocabulary", rows))


def describe_means(means: np.ndarray | None, corpus: Sequence[str]) -> str:
    """Return which tables the means come from, as text."""
    return "no means" if means is None else f"means of {preview(corpus) or 'unknown origin'}"
