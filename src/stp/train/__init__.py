"""Train STAMP on a list of stores, and small parts on the features of its frozen encoders."""

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
