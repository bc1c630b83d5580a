"""Scores of predictions, retrieval, clusters, probes and batches: arrays in, numbers out."""

from stp.metrics._batches import batch_effect, label_transfer
from stp.metrics._classes import classification_scores, clustering_scores, separation_scores
from stp.metrics._expression import ScoredGenes, expression_scores, gene_pearson, scored_genes
from stp.metrics._retrieval import recall_at_k
from stp.metrics._survival import concordance

__all__ = [
    "ScoredGenes",
    "batch_effect",
    "classification_scores",
    "clustering_scores",
    "concordance",
    "expression_scores",
    "gene_pearson",
    "label_transfer",
    "recall_at_k",
    "scored_genes",
    "separation_scores",
]
