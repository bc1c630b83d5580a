"""What the benchmark of alignment varies: losses, targets, and the gene encoder to start from."""

import dataclasses
from typing import NamedTuple

from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig

GENE = GeneEncoderConfig(context_length=96, width=64, depth=1, n_heads=4, ffn_width=128)
IMAGE = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 3},
    image_size=64,
    um_per_px=112 / 64,
)
MASKED = Phase(epochs=2, batch_size=64)
NEIGHBORS = Phase(objective="neighborhood", epochs=2, batch_size=63)
PRETRAIN = PretrainConfig(phases=(MASKED, NEIGHBORS), learning_rate=2e-3, min_learning_rate=1e-4)
STARTS = {  # of the gene encoder; both see every spot four times
    "pretrained": PRETRAIN,
    "without phase one": dataclasses.replace(PRETRAIN, phases=(NEIGHBORS, NEIGHBORS)),
}
ALIGN = AlignConfig(
    epochs=12,
    batch_size=48,
    accumulate=1,
    learning_rate=1e-3,
    min_learning_rate=2e-5,
    rotate=True,
    stain_jitter=0.2,
    projection_width=128,
)


class Variant(NamedTuple):
    """One way to align.

    Parameters
    ----------
    start
        Gene encoder to start from: a name in `STARTS`, "random", or none.
    n_losses
        Number of the paper's four losses, from the first.
    targets
        What images are aligned with.
    """

    start: str | None = "pretrained"
    n_losses: int = 4
    targets: str = "genes"


VARIANTS = {
    "all four losses": Variant(),
    "patch-gene": Variant(n_losses=1),
    "+ region-gene": Variant(n_losses=2),
    "+ patch-region": Variant(n_losses=3),
    "random gene encoder": Variant("random"),
    "pathways": Variant(None, targets="pathways"),
    "genes and pathways": Variant(targets="both"),
    "without phase one": Variant("without phase one"),
}
