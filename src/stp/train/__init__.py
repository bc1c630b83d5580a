"""Train STAMP on a list of stores, and what stands on its frozen encoders on the spots that they embedded."""

from stp.train.adaptation import adapt
from stp.train.alignment import align
from stp.train.config import AdaptConfig, AlignConfig, Phase, PretrainConfig, RegressionConfig
from stp.train.pretraining import pretrain
from stp.train.regression import fit_expression_head

__all__ = [
    "AdaptConfig",
    "AlignConfig",
    "Phase",
    "PretrainConfig",
    "RegressionConfig",
    "adapt",
    "align",
    "fit_expression_head",
    "pretrain",
]
