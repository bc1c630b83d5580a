"""Scores of predictions, retrieval, clusters, probes and batches: arrays in, numbers out."""

from stp.metrics._batches import batch_effect, label_transfer
from stp.metrics._binary import binary_scores, multiclass_scores
from stp.metrics._calibration import calibration
from stp.metrics._classes import classification_scores, clustering_scores, separation_scores
from stp.metrics._expression import ScoredGenes, expression_scores, gene_pearson, scored_genes
from stp.metrics._resample import resample
from stp.metrics._retrieval import recall_at_k
from stp.metrics._risk_groups import compare_risk_groups
from stp.metrics._survival import concordance
from stp.metrics._survival_scores import kaplan_meier, uno_concordance
from stp.metrics._values import value_scores

__all__ = [
    "ScoredGenes",
    "batch_effect",
    "binary_scores",
    "calibration",
    "classification_scores",
    "clustering_scores",
    "compare_risk_groups",
    "concordance",
    "expression_scores",
    "gene_pearson",
    "kaplan_meier",
    "label_transfer",
    "multiclass_scores",
    "recall_at_k",
    "resample",
    "scored_genes",
    "separation_scores",
    "uno_concordance",
    "value_scores",
]
