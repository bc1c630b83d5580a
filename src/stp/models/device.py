"""The device and the precision that models compute with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from stp._settings import settings

Built = TypeVar("Built")


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the given device if it works; for None, that of `stp.settings` or a GPU or the CPU.

    Raises
    ------
    ValueError
        If the device does not exist or cannot be used.
    """
    if device is None:
        device = settings.device
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        usable = torch.device(device)
        if usable.type == "cuda":
            torch.cuda.get_device_properties(usable)
        else:
            torch.empty(0, device=usable)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used here: {reason}; stp doctor lists what can"
        ) from error
    return usable


def choose_precision(device: torch.device, precision: str) -> str:
    """Return "bf16" or "fp32"; "auto" is the faster one: bf16 on a GPU, fp32 on a CPU."""
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision must be 'auto', 'bf16' or 'fp32', not {precision!r}")
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context that computes in the precision of `choose_precision`."""
    enabled = choose_precision(device, precision) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def inference(
    model: nn.Module, device: str | torch.device | None, precision: str
) -> Iterator[torch.device]:
    """Evaluate a model on a device without gradients, and restore its device and mode afterwards.

    The context gives the device.
    """
    compute_device = choose_device(device)
    home_device = next(model.parameters()).device
    training = model.training
    try:
        model.to(compute_device).eval()
        with torch.inference_mode(), autocast(compute_device, precision):
            yield compute_device
    finally:
        model.to(home_device).train(training)


def build_with_seed(seed: int, build: Callable[[], Built]) -> Built:
    """Return what `build()` makes with a random seed, without changing the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
