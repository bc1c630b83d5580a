"""Models."""

import os
from unittest import mock

import torch
from tests.bad_input.case import refused

import stp

without_network = mock.patch.multiple(
    "huggingface_hub.constants", HF_HUB_OFFLINE=True, HF_HUB_CACHE="empty"
)


@refused(FileNotFoundError, "from the hub or from its cache on this machine; .*path=")
@without_network
def no_network_and_no_weights_in_the_cache():
    """Weights come from the Hugging Face hub or from its cache. Neither has them.

    Fetch them on a machine with a network and copy the cache or the file: [](howto/gpus.md).
    """
    stp.models.load_backbone("UNI2-h")


@refused(ValueError, "no backbone 'resnet50'; choose from")
def an_unknown_backbone():
    """Only pathology encoders with a known scale and normalization have a name.

    Choose a name that the message lists, or describe any vision transformer of timm in a config:
    [](howto/backbones.md).
    """
    stp.models.load_backbone("resnet50")


@refused(FileNotFoundError, "has no config.json; give a folder written by save_pretrained")
def a_folder_without_a_model():
    """The path is wrong, or the run stopped before its first weights.

    Pass a folder that `save_pretrained` or `stp.train` wrote. The published weights of STAMP's
    authors have another format: use {func}`stp.models.load_release`, see [](howto/weights.md).
    """
    stp.models.Stamp.from_pretrained("runs/align/stamp")


@refused(ValueError, "s3://bucket/stamp is remote, and models are written on local disks only")
def saving_a_model_to_an_address(model):
    """Models are written to a folder of this machine.

    Give a local folder, and upload that.
    """
    model.save_pretrained("s3://bucket/stamp")


@refused(FileNotFoundError, "cannot get config.json of owner/name .*give the folder of a model")
@without_network
def a_model_of_the_hub_without_a_network():
    """The hub is out of reach, and its cache on this machine does not have the model.

    Load the model once on a machine with a network and copy the cache, or pass the folder of the
    model: [](howto/weights.md).
    """
    stp.models.Stamp.from_pretrained("owner/name")


@refused(ValueError, "terms that forbid derivatives .* license_checked=True")
def a_model_whose_terms_forbid_to_share_it(model):
    """The model derives from weights that may not be changed and passed on.

    Ask the owners of those weights. If they agree, pass `license_checked=True`.
    """
    model.card = stp.models.ModelCard(license="CC-BY-4.0", terms=("UNI: CC-BY-NC-ND-4.0",))
    model.push_to_hub("owner/name")


@refused(ValueError, "contains a Stamp; load it with that class, not GeneEncoder")
def a_model_of_another_class(model):
    """The folder has a model of another class.

    Load it with its own class. The parts of a Stamp are `model.gene_encoder` and
    `model.image_encoder`.
    """
    model.save_pretrained("stamp")
    stp.models.GeneEncoder.from_pretrained("stamp")


@refused(ValueError, "is truncated or damaged")
def weights_are_incomplete(model):
    """The file was not copied completely, or the disk was full.

    Copy the folder again.
    """
    model.save_pretrained("stamp")
    os.truncate("stamp/model.safetensors", 10_000)
    stp.models.Stamp.from_pretrained("stamp")


@refused(ValueError, "nothing in it was run")
def weights_with_code():
    """Files of `torch.save` can run code when they are read. This file has more than tensors, so it
    is not read.

    Use weights in safetensors format. If you trust the file, save only its tensors with
    `torch.save(model.state_dict(), path)`.
    """
    torch.save(torch.nn.Linear(2, 2), "weights.bin")
    stp.models.load_backbone("UNI", path="weights.bin")


@refused(ValueError, "are NaN or infinite in row 0, 1, 2 and .* check the weights of the model")
def features_are_not_finite(sdata, model):
    """The model computes NaN or infinite values. On a GPU, bf16 can be too coarse for a model; on
    any device, its weights may be damaged. Nothing was written.

    Pass `precision="fp32"`. If that does not help, load the weights again.
    """
    with torch.no_grad():
        model.patch_projection.bias.fill_(float("nan"))
    stp.tl.embed_images(sdata, model)


@refused(ValueError, "image_size 256 is no multiple of 14.*choose 252 or 266")
def an_image_size_that_leaves_pixels_unseen():
    """A vision transformer cuts an image into squares. Squares of 14 pixels do not fill 256, so the
    last pixels would count for nothing.

    Choose a size that the message names.
    """
    stp.models.ImageEncoderConfig("vit_small_patch14_dinov2", {}, image_size=256)


@refused(ValueError, "CTransPath cannot be loaded by its name.*WrappedEncoder")
def an_encoder_that_timm_cannot_build():
    """Some pathology encoders are no vision transformers of timm with a class token.

    Load it with the code of its authors, and wrap it in {class}`stp.models.WrappedEncoder`:
    [](howto/backbones.md).
    """
    stp.models.load_backbone("CTransPath")


@refused(TypeError, "a CNN is a WrappedEncoder and cannot be aligned.*give an ImageEncoder")
def a_wrapped_module_to_align():
    """Alignment gives a vision transformer one more token, which other modules do not take.

    Start from an encoder of {func}`stp.models.load_backbone`. The features of a wrapped module can
    be probed and regressed.
    """
    module = torch.nn.Conv2d(3, 8, 3)
    encoder = stp.models.WrappedEncoder(module, width=8, image_size=32, um_per_px=1.0, name="a CNN")
    config = stp.train.AlignConfig(targets="pathways", gene_sets="sets.gmt")
    stp.train.align(["slide.zarr"], "run", image_encoder=encoder, config=config)
