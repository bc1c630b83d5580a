"""The authors' released weights as a Stamp; users download them, they are not shipped."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from stp.models.gene import GeneEncoderConfig
from stp.models.image_config import ImageEncoderConfig
from stp.models.published.release_download import (
    default_folder,
    download_files,
    list_downloads,
)
from stp.models.published.release_files import read_assets
from stp.models.saved.card import ModelCard
from stp.models.saved.weights import check_shapes, read_tensors
from stp.models.stamp import Stamp, StampConfig

# Beginnings of the names of our tensors, and of those in the release.
RELEASE_NAMES = {
    "gene_encoder.": "spot_backbone.",
    "gene_projection.": "spot_projection.",
    "image_encoder.backbone.": "visual_backbone.base_model.",
    "image_encoder.prompt": "visual_backbone.p_visual",
    "image_encoder.reference_projection.": "visual_backbone.ref_pos_embed.",
    "localization_projection.": "positioning_projection.",
}
UNUSED = "spot_backbone.encoder_layer."  # the layer that the blocks of the release are copies of
STAGE_ONE = "spot_backbone.spatial_classifier_head."  # only weights of stage one have it
NAME = "STAMP, the authors' release"
CONVERTED = "stamp"  # folder of the release in our format
CARD = ModelCard(
    trained_on=("SpaVis-6M by the authors of STAMP, as they state",),
    license="none stated with the authors' code; the image encoder derives from UNI, "
    "CC-BY-NC-ND-4.0",
    intended_use="Comparison with the STAMP paper, in research. Not for diagnosis; do not pass "
    "the weights on.",
)


def load_release(cache: str | Path | None = None, *, accept_terms: bool = False) -> Stamp:
    """Download the authors' released weights once, and load them as a Stamp.

    The weights come from their page on the hub of Hugging Face; vocabulary, means and symbols from
    their repository at commit 78c4fd2. They are converted once; later calls need no network. Each
    call compares the files with their SHA-256: that of the weights is recorded at the first
    download. HF_ENDPOINT and STP_GITHUB_RAW name other servers, such as mirrors.

    Parameters
    ----------
    cache
        Folder for the files and the converted model; by default `release` in the `cache_dir` of
        `stp.settings`, or `stp/release` in the folder that HF_HOME names (`~/.cache/huggingface`).
        The downloaded weights are in the cache of the hub.
    accept_terms
        You have read the authors' pages. They state no license, and the image encoder derives
        from UNI, which has the license CC-BY-NC-ND-4.0.

    Returns
    -------
    The Stamp on the CPU.

    Raises
    ------
    PermissionError
        If `accept_terms` is False: the message lists the files, their sizes and addresses. Or if
        the authors' page asks for an agreement first.
    FileNotFoundError
        If a file cannot be downloaded. The message names the files, their addresses and the
        folder to put them in.
    ValueError
        If a file is another one than before, is damaged, or does not contain these weights.

    Examples
    --------
    >>> stp.models.load_release()
    Traceback (most recent call last):
    PermissionError: ...
    """
    folder = default_folder() if cache is None else Path(cache)
    if not accept_terms:
        raise PermissionError(
            f"load_release downloads to {folder} what is not there yet of {list_downloads()}; "
            "their authors state no license, and the image encoder derives from UNI "
            "(CC-BY-NC-ND-4.0): read their pages, then pass accept_terms=True"
        )
    converted = folder / CONVERTED
    if converted.is_dir():
        stamp = Stamp.from_pretrained(converted)
        stamp.name = NAME
        return stamp
    files = download_files(folder)
    stamp = load_release_files(files.checkpoint, files.assets)
    stamp.card = replace(CARD, source=files.source)
    unfinished = folder / f".{CONVERTED}.{os.getpid()}"
    try:
        stamp.save_pretrained(unfinished)
        if not converted.is_dir():  # another process may have been faster
            unfinished.rename(converted)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return stamp


def load_release_files(
    checkpoint: str | Path, assets: str | Path, *, channel_order: str = "bgr"
) -> Stamp:
    """Load files of the authors' release as a Stamp; `load_release` also downloads them.

    Call `save_pretrained` on it once; afterwards `from_pretrained` loads it like any other model.
    Its config records what these weights need: pooling over positions 4 to 1,500 with padding,
    rounded means, and the order of the channels.

    Parameters
    ----------
    checkpoint
        The authors' `pytorch_model.bin`: a state dict, plain or with names that begin with
        `module.`, or a Lightning checkpoint.
    assets
        Folder with the authors' `model.h5ad` (genes), `Visium_mean.npy` and
        `gene_name_id_dict.pkl` (symbols).
    channel_order
        "bgr", the order in which the authors' script gives images to these weights, or "rgb".
        `stp release-check` compares both on a section.

    Returns
    -------
    The Stamp on the CPU.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or contains anything else, in which case nothing in it was run; or if
        tensors are missing, unknown or of another shape (the error names them).

    Examples
    --------
    >>> stp.models.load_release_files(
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
    gene = GeneEncoderConfig(pooling="reference", tie_heads=False)
    image = ImageEncoderConfig(channel_order=channel_order)
    config = StampConfig(gene, image)
    vocabulary = read_assets(assets)
    weights = {
        name: tensor
        for name, tensor in read_tensors(checkpoint).items()
        if not name.startswith(UNUSED)
    }
    with torch.device("meta"):  # names and shapes without memory
        state = Stamp(config, vocabulary).state_dict()
    expected = {released_name(name): tuple(tensor.shape) for name, tensor in state.items()}
    for name, shape in expected.items():
        if name.startswith(STAGE_ONE) and name not in weights:
            weights[name] = torch.zeros(shape)
    actual = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    check_shapes(actual, expected, checkpoint, "the released architecture")
    stamp = Stamp(config, vocabulary)
    stamp.load_state_dict({name: weights[released_name(name)] for name in stamp.state_dict()})
    stamp.name = NAME
    stamp.card = CARD
    return stamp.eval()


def released_name(name: str) -> str:
    """Return the name in the release of a tensor of Stamp."""
    for ours, theirs in RELEASE_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
