"""What the training loop expects of a task, a sampler and a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from stp.data.samplers import SpotIndex

Batch = dict[str, torch.Tensor]


class Task(Protocol):
    """A torch module that turns a batch into losses.

    Each loss is a mean over items of the batch, such as tokens or spots, and `counts` returns the
    number of these items. The loop minimizes the sum of the losses that `counts` names; other
    values that a task returns are only logged.
    """

    title: str  # what is trained, for lines of the log

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the losses of a batch by name."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of items that each loss averages."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return all weights and buffers by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Set all weights and buffers."""

    def to(self, device: torch.device) -> Any:
        """Move the module to a device."""

    def train(self) -> Any:
        """Switch to training, in which dropout is active."""

    def eval(self) -> Any:
        """Switch to evaluation, in which dropout is inactive."""


class Sampler(Protocol):
    """Decides which spots make each batch of an epoch."""

    unit: int  # number of consecutive rows of a batch that one process reads together

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch, each (m, 2): store and row of every spot."""


class Dataset(Protocol):
    """Reads the spots that a sampler has chosen."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the stores or tables that the spots come from."""

    def __getitem__(self, index: SpotIndex, /) -> Batch:
        """Read the spots of a batch."""
