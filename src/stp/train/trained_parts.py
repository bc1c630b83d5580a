"""The parts of a Stamp that alignment trains."""

from stp.models.device import build_with_seed
from stp.models.lora import add_adapters
from stp.models.stamp import Stamp
from stp.train.config import AlignConfig


def freeze(stamp: Stamp, config: AlignConfig) -> None:
    """Freeze all parts but those that `config.trained` names."""
    if stamp.gene_encoder is not None:
        stamp.gene_encoder.requires_grad_(config.trained == "all")
    stamp.image_encoder.requires_grad_(config.trained != "projections")
    if config.trained == "lora":
        build_with_seed(config.seed, lambda: add_adapters(stamp.image_encoder, config.lora_rank))
