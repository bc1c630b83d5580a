"""Sums of the counts of a table by gene."""

from typing import Any

import numpy as np

from stp.genes.coverage import check_coverage
from stp.genes.table_genes import TableGenes
from stp.tables.counts import sum_genes
from stp.tables.whole_counts import with_whole_counts


def sum_table(counts: Any, genes: TableGenes, n_genes: int, label: str) -> np.ndarray:
    """Sum the counts of a table by gene, (2, n_genes), after a check of the coverage."""
    index = genes.matches.index.copy()
    # UMIs without a gene of the vocabulary are summed by the reason, after the genes.
    is_unmapped = genes.is_gene & (index < 0)
    reasons, positions = np.unique(genes.matches.rule[is_unmapped].astype(str), return_inverse=True)
    index[is_unmapped] = n_genes + positions
    n_sums = n_genes + len(reasons)
    sums = with_whole_counts(counts, lambda whole: sum_genes(whole, index, n_sums))
    unmapped = dict(zip(reasons.tolist(), sums[0, n_genes:].tolist(), strict=True))
    check_coverage(unmapped, int(sums[0].sum()), n_genes=n_genes, label=label)
    return sums[:, :n_genes]
