"""The short description of a model, which a notebook shows."""

from collections.abc import Mapping

from torch import nn

from stp._log import preview
from stp._summary import Summary
from stp.models.saved.card import ModelCard


def summarize_model(
    module: nn.Module, name: str, parts: Mapping[str, str], card: ModelCard
) -> Summary:
    """Return name and size of a model, what describes its parts, its training and its license."""
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    rows = {
        "name": name or "not saved yet",
        "parameters": f"{n_parameters:,}",
        **parts,
        "trained on": preview(card.trained_on, 2) or "not recorded",
        "license": card.license,
    }
    return Summary(type(module).__name__, rows)
