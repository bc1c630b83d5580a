"""The authors' released weights as a Stamp; nothing of theirs is shipped, a user downloads it."""

from pathlib import Path

import torch

from stp.models.gene import GeneEncoderConfig
from stp.models.image import ImageEncoderConfig
from stp.models.published.release_files import read_assets
from stp.models.saved.card import ModelCard
from stp.models.saved.weights import check_shapes, read
from stp.models.stamp import Stamp, StampConfig

NAMES = {
    "gene_encoder.": "spot_backbone.",
    "gene_projection.": "spot_projection.",
    "image_encoder.backbone.": "visual_backbone.base_model.",
    "image_encoder.prompt": "visual_backbone.p_visual",
    "image_encoder.reference_projection.": "visual_backbone.ref_pos_embed.",
    "localization_projection.": "positioning_projection.",
}
UNUSED = "spot_backbone.encoder_layer."  # the layer that their blocks are copies of
STAGE_ONE = "spot_backbone.spatial_classifier_head."  # only in weights of stage one
CARD = ModelCard(
    trained_on=("SpaVis-6M by the authors of STAMP, as they state",),
    license="none stated with the authors' code; the image encoder derives from UNI, CC-BY-NC-ND-4.0",
    intended_use="Comparison with the STAMP paper, in research. Not for diagnosis; do not pass the weights on.",
)


def load_reference(
    checkpoint: str | Path, assets: str | Path, *, channel_order: str = "bgr"
) -> Stamp:
    """Make a Stamp of the authors' released weights.

    `save_pretrained` it once: from then on it is a model as any, whose config records what these weights need: pooling
    over positions 4 to 1,500 with padding, their rounded means, and the order of channels.

    Parameters
    ----------
    checkpoint
        Their `pytorch_model.bin`: a state dict, plain or with names that begin `module.`, or a Lightning checkpoint.
    assets
        Folder of their `model.h5ad` (genes), `Visium_mean.npy` and `gene_name_id_dict.pkl` (symbols).
    channel_order
        "bgr", as their script feeds images to these weights, or "rgb". `stp reference-check` shows on a section of
        yours what it changes.

    Returns
    -------
    The Stamp, on the CPU.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A file is damaged or holds anything but what it should, in which case nothing in it was run; or tensors are
        missing, unknown or of another shape (named).

    Examples
    --------
    >>> stp.models.load_reference(
    ...     "nowhere/pytorch_model.bin", "assets"
    ... )  # with the files of the release
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no weights at {checkpoint}; give the pytorch_model.bin of the release"
        )
    image = ImageEncoderConfig(channel_order=channel_order)
    vocabulary = read_assets(assets)
    weights = {name: x for name, x in read(checkpoint).items() if not name.startswith(UNUSED)}
    config = StampConfig(GeneEncoderConfig(pooling="reference", tie_heads=False), image)
    with torch.device("meta"):  # no memory yet
        places = {
            released_name(name): x for name, x in Stamp(config, vocabulary).state_dict().items()
        }
    weights = {
        name: torch.zeros(x.shape) for name, x in places.items() if name.startswith(STAGE_ONE)
    } | weights
    found, expected = ({name: tuple(x.shape) for name, x in of.items()} for of in (weights, places))
    check_shapes(found, expected, checkpoint, "the released architecture")
    stamp = Stamp(config, vocabulary)
    stamp.load_state_dict({name: weights[released_name(name)] for name in stamp.state_dict()})
    stamp.name, stamp.card = "STAMP, the authors' release", CARD
    return stamp.eval()


def released_name(name: str) -> str:
    """Return what the release calls a tensor of Stamp."""
    return next(
        (theirs + name[len(ours) :] for ours, theirs in NAMES.items() if name.startswith(ours)),
        name,
    )
