"""Train STAMP on a list of stores, and small parts on the features of its frozen encoders."""

from stp.train.adaptation import adapt
from stp.train.alignment import align
from stp.train.config import AlignConfig, Phase, PretrainConfig
from stp.train.cross_validation import cross_validate_slides
from stp.train.frozen_config import AdaptConfig, RegressionConfig
from stp.train.pretraining import pretrain
from stp.train.regression import fit_expression_head
from stp.train.slide_config import SlideConfig
from stp.train.slides import fit_slides
from stp.train.targets import Classes, Survival, Value

__all__ = [
    "AdaptConfig",
    "AlignConfig",
    "Classes",
    "Phase",
    "PretrainConfig",
    "RegressionConfig",
    "SlideConfig",
    "Survival",
    "Value",
    "adapt",
    "align",
    "cross_validate_slides",
    "fit_expression_head",
    "fit_slides",
    "pretrain",
]
