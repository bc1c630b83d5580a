"""Low-rank adapters (LoRA) on a vision transformer: adding them, and merging them into weights."""

from copy import deepcopy
from typing import TypeVar

from torch import nn

from stp._extras import import_extra
from stp.models.image import ImageEncoder

Model = TypeVar("Model", bound=nn.Module)
# The layers that the LoRA paper adapts. On the wider MLP layers, adapters would cost as much time
# as they save.
ATTENTION_LAYERS = r"blocks\.\d+\.attn\.(qkv|proj)"


def add_adapters(encoder: ImageEncoder, rank: int) -> None:
    """Freeze the backbone and add trainable adapters to its attention layers.

    The outputs of the encoder stay the same until the adapters are trained.

    Parameters
    ----------
    encoder
        The encoder that is changed.
    rank
        Rank of the two matrices of an adapter.
    """
    peft = import_extra("peft")
    encoder.backbone.requires_grad_(False)
    adapters = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION_LAYERS)
    peft.inject_adapter_in_model(adapters, encoder.backbone)


def merge_adapters(model: Model) -> Model:
    """Return a copy with the adapters added to the weights: a plain model with the same outputs."""
    plain = deepcopy(model)
    layer_class = import_extra("peft").tuners.lora.LoraLayer
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, layer_class):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return plain.requires_grad_(True)
