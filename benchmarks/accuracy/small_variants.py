"""Settings that the search for small data varies, one at a time."""

import dataclasses

from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig

PATCH_UM = 112.0
UM_PER_PIXEL = 2.8  # no image at hand is coarser


def make_image(
    image_size: int, patch_um: float, width: int = 96, depth: int = 3
) -> ImageEncoderConfig:
    """Return a small vision transformer with 16 tokens."""
    return ImageEncoderConfig(
        "vit_tiny_patch16_224",
        {"patch_size": image_size // 4, "embed_dim": width, "depth": depth, "num_heads": 3},
        image_size=image_size,
        um_per_px=patch_um / image_size,
    )


@dataclasses.dataclass(frozen=True)
class SmallSettings:
    """Everything that decides a small Stamp.

    Parameters
    ----------
    gene, image
        Sizes of the encoders.
    pretrain, align
        Settings of the two stages of training.
    """

    gene: GeneEncoderConfig = GeneEncoderConfig(
        context_length=128, width=64, depth=2, n_heads=4, ffn_width=128
    )
    image: ImageEncoderConfig = make_image(40, PATCH_UM)
    pretrain: PretrainConfig = PretrainConfig(
        phases=(Phase(epochs=10, batch_size=54),), learning_rate=3e-3, min_learning_rate=1e-4
    )
    align: AlignConfig = AlignConfig(
        epochs=30,
        batch_size=48,
        accumulate=1,
        learning_rate=1e-3,
        min_learning_rate=2e-5,
        rotate=True,
        stain_jitter=0.2,
        projection_width=64,
        trained="images",
    )


START = SmallSettings()


def _gene(**changes: int) -> SmallSettings:
    return dataclasses.replace(START, gene=dataclasses.replace(START.gene, **changes))


def _pretrain(*phases: Phase) -> SmallSettings:
    return dataclasses.replace(START, pretrain=dataclasses.replace(START.pretrain, phases=phases))


def _align(**changes: object) -> SmallSettings:
    return dataclasses.replace(LONG, align=dataclasses.replace(LONG.align, **changes))


def _image(*arguments: float, **changes: int) -> SmallSettings:
    return dataclasses.replace(LONG, image=make_image(*arguments, **changes))


# The second round starts from the gene encoder that was best in the first.
LONG = _pretrain(Phase(epochs=160, batch_size=54))

GENE_VARIANTS = {
    "start": START,
    "context of 32 genes": _gene(context_length=32),
    "context of 512 genes": _gene(context_length=512),
    "genes, width 128": _gene(width=128, ffn_width=256),
    "pretraining, 2 epochs": _pretrain(Phase(epochs=2, batch_size=54)),
    "pretraining, 40 epochs": _pretrain(Phase(epochs=40, batch_size=54)),
    "pretraining, 160 epochs": LONG,
    "pretraining, 40 epochs, then 20 with neighborhoods": _pretrain(
        Phase(epochs=40, batch_size=54), Phase(objective="neighborhood", epochs=20, batch_size=54)
    ),
}
IMAGE_VARIANTS = {
    "patches of 224 µm": _image(40, 2 * PATCH_UM),
    "patches of 224 µm, 80 pixels": _image(80, 2 * PATCH_UM),
    "images, width 192": _image(40, PATCH_UM, width=192),
    "images, depth 1": _image(40, PATCH_UM, depth=1),
    "alignment, 10 epochs": _align(epochs=10),
    "alignment, 100 epochs": _align(epochs=100),
    "learning rate 3e-4": _align(learning_rate=3e-4),
    "8 spots per slide": _align(spots_per_slide=8),
    "48 spots per slide": _align(spots_per_slide=48),
    "batches of 144": _align(batch_size=144),
    "no augmentation": _align(rotate=False, stain_jitter=0.0),
    "no stain jitter": _align(stain_jitter=0.0),
    "stain jitter 0.5": _align(stain_jitter=0.5),
    "both encoders trained": _align(trained="all"),
    "patch-gene loss alone": _align(losses=START.align.losses[:1]),
    "weight decay 0.1": _align(weight_decay=0.1),
    "temperature 0.02": _align(temperature=0.02),
    "temperature 0.2": _align(temperature=0.2),
}
# The settings of the package: what was best on both tasks.
CHOSEN = dataclasses.replace(START, pretrain=PretrainConfig.small(), align=AlignConfig.small())
VARIANTS = GENE_VARIANTS | IMAGE_VARIANTS | {"chosen": CHOSEN}
