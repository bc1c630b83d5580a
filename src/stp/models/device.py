"""Where, and in which precision, models compute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or a GPU if there is one; ValueError where there is no such device."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda":
            torch.cuda.get_device_properties(chosen)
        else:
            torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used here: {reason}; stp doctor lists what can"
        ) from error
    return chosen


def choose_precision(device: torch.device, precision: str) -> str:
    """Return the precision asked for, or with "auto" bf16 on a GPU; on CPUs fp32 is faster."""
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision must be 'auto', 'bf16' or 'fp32', not {precision!r}")
    return ("bf16" if device.type == "cuda" else "fp32") if precision == "auto" else precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute in the precision that `choose_precision` says."""
    enabled = choose_precision(device, precision) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def inference(
    model: nn.Module, device: str | torch.device | None, precision: str
) -> Iterator[torch.device]:
    """Evaluate a model on a device without gradients, and put it back as it was."""
    chosen, home, training = choose_device(device), next(model.parameters()).device, model.training
    try:
        model.to(chosen).eval()
        with torch.inference_mode(), autocast(chosen, precision):
            yield chosen
    finally:
        model.to(home).train(training)


def build_with_seed(seed: int, build: Callable[[], Any]) -> Any:
    """Build a module from a seed, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
