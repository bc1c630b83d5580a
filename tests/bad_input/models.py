"""Models."""

import os
from unittest import mock

import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from tests.bad_input.case import refused

import stp


@refused(FileNotFoundError, "from the hub or from its cache on this machine; .*path=")
@mock.patch(
    "huggingface_hub.hf_hub_download", mock.Mock(side_effect=LocalEntryNotFoundError("offline"))
)
def no_network_and_no_weights_in_the_cache():
    """Weights come from the hub of Hugging Face or from its cache, and there is neither.

    Fetch them on a machine with a network and copy the cache or the file: [](howto/gpus.md).
    """
    stp.models.load_backbone("UNI2-h")


@refused(ValueError, "no backbone 'resnet50'; choose from")
def an_unknown_backbone():
    """Only pathology encoders that are known with their scale and normalization have a name here.

    Choose one that the message lists, or give any vision transformer of timm as a config: [](howto/backbones.md).
    """
    stp.models.load_backbone("resnet50")


@refused(FileNotFoundError, "has no config.json; give a folder written by save_pretrained")
def a_folder_without_a_model():
    """The path is wrong, or the run did not come to its first weights.

    Give a folder that `save_pretrained` or `stp.train` wrote. The published weights of STAMP's authors have another
    form: {func}`stp.models.load_reference`, see [](howto/weights.md).
    """
    stp.models.Stamp.from_pretrained("runs/stamp")


@refused(ValueError, "contains a Stamp; load it with that class, not GeneEncoder")
def a_model_of_another_class(model):
    """The folder holds another kind of model.

    Load it with its own class; a part of a Stamp is `model.gene_encoder` or `model.image_encoder`.
    """
    model.save_pretrained("stamp")
    stp.models.GeneEncoder.from_pretrained("stamp")


@refused(ValueError, "is truncated or damaged")
def weights_were_cut_off(model):
    """A copy ended early, or the disk was full.

    Copy the folder again.
    """
    model.save_pretrained("stamp")
    os.truncate("stamp/model.safetensors", 10_000)
    stp.models.Stamp.from_pretrained("stamp")


@refused(ValueError, "nothing in it was run")
def weights_with_code_in_them():
    """Files of torch.save may run code when they are read; these hold more than tensors, so they are not read.

    Take weights in safetensors. Of a file that you trust save the tensors alone:
    `torch.save(model.state_dict(), path)`.
    """
    torch.save(torch.nn.Linear(2, 2), "weights.bin")
    stp.models.load_backbone("UNI", path="weights.bin")
