"""A digest of the weights, config and vocabulary of a model, which decide its outputs."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Protocol

import torch


class Config(Protocol):
    """The config of a model: an instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


def digest(
    kind: str, config: Config, vocabulary: str | None, weights: dict[str, torch.Tensor]
) -> str:
    """Return the SHA-256 (hexadecimal) of a model.

    Parameters
    ----------
    kind
        Name of the model's class.
    config
        Config of the model. Fields with their default values do not count, so old models keep
        their digest when a config gets a new field.
    vocabulary
        Digest of the model's vocabulary, or None without a vocabulary.
    weights
        State of the model. Tensors count by their values in float32, whatever type stores them.
    """
    about = {"class": kind, "config": non_default_values(config), "vocabulary": vocabulary}
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    with ThreadPoolExecutor() as threads:
        digests = dict(zip(weights, threads.map(_digest_tensor, weights.values()), strict=True))
    for name in sorted(digests):
        sha.update(f"\n{name} {digests[name]}".encode())
    return sha.hexdigest()


def non_default_values(config: Config) -> dict[str, Any]:
    """Return the fields of a config that differ from their defaults, in plain types."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.default_factory is dataclasses.MISSING:
            default = field.default
        else:
            default = field.default_factory()
        if value != default:
            values[field.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    """Return a value of a config in plain types; it may be a config or a tuple of configs."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return non_default_values(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _digest_tensor(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().float().contiguous()
    sha = hashlib.sha256(json.dumps(list(values.shape)).encode())
    if values.ndim:
        sha.update(values.view(-1).view(torch.uint8).numpy().data)
    else:
        sha.update(values.numpy().tobytes())  # a single number has no view as bytes
    return sha.hexdigest()
