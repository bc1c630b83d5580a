"""Low-rank adapters on a vision transformer (LoRA), through peft, and how they become plain weights again."""

from copy import deepcopy
from typing import TypeVar

from torch import nn

from stp._extras import import_extra
from stp.models.image import ImageEncoder

Model = TypeVar("Model", bound=nn.Module)
LAYERS = r"blocks\.\d+\.attn\.(qkv|proj)"  # as in LoRA's paper; on the wider layers adapters cost what they save


def add_adapters(encoder: ImageEncoder, rank: int) -> None:
    """Freeze the backbone, and add adapters of this rank, which start at nothing, to the layers of its attention."""
    peft = import_extra("peft")
    encoder.backbone.requires_grad_(False)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS), encoder.backbone
    )


def merged(model: Model) -> Model:
    """Return a copy whose adapters are added to the weights: a plain model with the same outputs."""
    plain = deepcopy(model)
    layer_class = import_extra("peft").tuners.lora.LoraLayer
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, layer_class):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return plain.requires_grad_(True)
