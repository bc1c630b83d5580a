"""Figures of slides, patches, predictions, scores and training runs."""

from stp.pl._batch_effect import batch_effect
from stp.pl._confusion import confusion
from stp.pl._expression import expression
from stp.pl._gene_correlation import gene_correlation
from stp.pl._neighborhoods import neighborhoods
from stp.pl._patches import patches
from stp.pl._retrieval import retrieval
from stp.pl._spots import spots
from stp.pl._tissue import tissue
from stp.pl._training import training

__all__ = [
    "batch_effect",
    "confusion",
    "expression",
    "gene_correlation",
    "neighborhoods",
    "patches",
    "retrieval",
    "spots",
    "tissue",
    "training",
]
