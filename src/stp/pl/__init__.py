"""Figures of slides, patches, predictions, scores and training runs."""

from stp.pl._attention import attention
from stp.pl._batch_effect import batch_effect
from stp.pl._calibration import calibration
from stp.pl._confusion import confusion
from stp.pl._expression import expression
from stp.pl._gene_correlation import gene_correlation
from stp.pl._kaplan_meier import kaplan_meier
from stp.pl._neighborhoods import neighborhoods
from stp.pl._patches import patches
from stp.pl._precision_recall import precision_recall
from stp.pl._query import query
from stp.pl._retrieval import retrieval
from stp.pl._roc import roc
from stp.pl._slide_genes import slide_genes
from stp.pl._spots import spots
from stp.pl._tiles import tiles
from stp.pl._tissue import tissue
from stp.pl._training import training

__all__ = [
    "attention",
    "batch_effect",
    "calibration",
    "confusion",
    "expression",
    "gene_correlation",
    "kaplan_meier",
    "neighborhoods",
    "patches",
    "precision_recall",
    "query",
    "retrieval",
    "roc",
    "slide_genes",
    "spots",
    "tiles",
    "tissue",
    "training",
]
