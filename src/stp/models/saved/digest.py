"""One number for all that decides what a model computes: weights, config and vocabulary."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def digest(kind: str, config: Any, vocabulary: str | None, weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hexadecimal) of a model.

    Parameters
    ----------
    kind
        Name of its class.
    config
        Its config dataclass. Fields at their defaults are left out, so that a new one leaves old models their digest.
    vocabulary
        Digest of its vocabulary, if it has one.
    weights
        Its state; tensors count by their values in float32, whatever they are stored in.
    """
    about = {"class": kind, "config": stated(config), "vocabulary": vocabulary}
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    with ThreadPoolExecutor() as threads:
        for name, part in sorted(
            zip(weights, threads.map(_digest_of, weights.values()), strict=True)
        ):
            found.update(f"\n{name} {part}".encode())
    return found.hexdigest()


def stated(config: Any) -> dict[str, Any]:
    """Return the fields of a config that are not at their defaults, in plain types."""
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        if value != default:
            plain[field.name] = stated(value) if dataclasses.is_dataclass(value) else value
    return plain


def _digest_of(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().float().contiguous()
    found = hashlib.sha256(json.dumps(list(values.shape)).encode())
    found.update(
        values.view(-1).view(torch.uint8).numpy().data if values.ndim else values.numpy().tobytes()
    )
    return found.hexdigest()
