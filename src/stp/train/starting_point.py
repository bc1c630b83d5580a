"""What alignment starts from: a gene encoder, an image encoder, and the Stamp built from both."""

import math
from dataclasses import replace
from pathlib import Path

from torch import nn

from stp._log import warn
from stp.data.pairs import CELLS
from stp.genes.vocabulary import Vocabulary
from stp.models.device import build_with_seed
from stp.models.gene import GeneEncoder
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.patch_encoder import PatchEncoder
from stp.models.saved.card import ModelCard
from stp.models.stamp import Stamp, StampConfig
from stp.train.config import AlignConfig
from stp.train.trained_parts import freeze


def choose_genes(
    gene_encoder: GeneEncoder | str | Path | None,
    vocabulary: Vocabulary | None,
    config: AlignConfig,
) -> tuple[GeneEncoder | None, Vocabulary]:
    """Return the gene encoder, if the targets need one, and the vocabulary."""
    if config.targets == "pathways":
        if gene_encoder is not None:
            raise ValueError("targets 'pathways' take no gene_encoder; targets 'both' do")
        return None, vocabulary or Vocabulary.default()
    if gene_encoder is None or vocabulary is not None:
        raise ValueError(
            f"targets {config.targets!r} need gene_encoder, which brings its own vocabulary; "
            "pass it alone"
        )
    if not isinstance(gene_encoder, GeneEncoder):
        gene_encoder = GeneEncoder.from_pretrained(gene_encoder)
    gene_encoder.vocabulary.divisors()  # raises ValueError if the vocabulary has no means
    return gene_encoder, gene_encoder.vocabulary


def choose_images(
    image_encoder: ImageEncoderConfig | ImageEncoder,
) -> tuple[ImageEncoderConfig, ImageEncoder | None]:
    """Return the config of the image encoder of a Stamp, and the encoder with its first weights.

    Raises
    ------
    TypeError
        If it is something else; the error says what to give instead.
    """
    if isinstance(image_encoder, ImageEncoderConfig):
        return replace(image_encoder, has_prompt=True), None
    if isinstance(image_encoder, ImageEncoder):
        return replace(image_encoder.config, has_prompt=True), image_encoder
    if isinstance(image_encoder, PatchEncoder):
        raise TypeError(
            f"{image_encoder.name} is a {type(image_encoder).__name__} and cannot be aligned: "
            "alignment with localization gives a vision transformer a prompt token, and other "
            "modules take none; give an ImageEncoder, or use its features, e.g. in "
            "tl.regress_expression"
        )
    raise TypeError(
        f"image_encoder is {image_encoder!r}; give an ImageEncoder, e.g. "
        "stp.models.load_backbone('UNI'), or an ImageEncoderConfig"
    )


def build_stamp(
    model: StampConfig,
    vocabulary: Vocabulary,
    genes: GeneEncoder | None,
    images: ImageEncoder | None,
    config: AlignConfig,
) -> Stamp:
    """Build the Stamp that training starts from, and freeze the parts that are not trained."""
    stamp = build_with_seed(config.seed, lambda: Stamp(model, vocabulary))
    nn.init.constant_(stamp.logit_scale, math.log(1 / config.temperature))
    stamp.card = _card(genes, images)
    if genes and stamp.gene_encoder:
        stamp.gene_encoder.load_state_dict(genes.state_dict())
    if images:
        # The prompt and its projection keep their seeded weights if the encoder has none.
        stamp.image_encoder.load_state_dict(images.state_dict(), strict=images.config.has_prompt)
    height, width = stamp.image_encoder.backbone.patch_embed.grid_size
    if "localization" in config.losses and min(height, width) < CELLS:
        raise ValueError(
            f"localization needs {CELLS} x {CELLS} tokens of an image, and this backbone makes "
            f"{height} x {width}; choose a larger image_size or a smaller patch_size, or losses "
            "without localization"
        )
    freeze(stamp, config)
    return stamp


def _card(genes: GeneEncoder | None, images: ImageEncoder | None) -> ModelCard:
    """Return a card with the training of the encoders, and the license of the image encoder."""
    trained_on = genes.card.trained_on if genes else ()
    base_models = genes.card.base_models if genes else ()
    if images is None:
        return ModelCard(trained_on=trained_on, base_models=base_models)
    name = images.name or "an image encoder without a name"
    license_text = images.card.license
    license_line = " ".join([f"License: {license_text}.", *images.card.terms])
    line = f"{name}, digest {images.digest}. {license_line}"
    if images.card.no_derivatives():
        line += " Its license forbids derivatives: do not pass this model on without permission."
        warn(
            f"the license of {name}, {license_text}, forbids derivatives, and the aligned model is "
            "one: read the terms, and do not pass the model on without permission"
        )
    return ModelCard(
        trained_on=(*trained_on, *images.card.trained_on),
        base_models=(*base_models, *images.card.base_models, line),
    )
