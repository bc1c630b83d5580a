"""Train STAMP on a list of stores: pretrain the gene encoder, then align it with images."""

from stp.train.alignment import align
from stp.train.config import AlignConfig, Phase, PretrainConfig
from stp.train.pretraining import pretrain

__all__ = ["AlignConfig", "Phase", "PretrainConfig", "align", "pretrain"]
