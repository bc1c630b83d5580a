"""The processes that train together: a single one, or those that torchrun started."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from stp.models.device import choose_device

TIMEOUT = timedelta(hours=4)  # processes wait for each other while large stores are ranked


@dataclass(frozen=True)
class Processes:
    """The processes that train one model, seen from one of them.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    size
        Number of processes.
    device
        Torch device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up numbers over all processes, name by name."""
        if self.size == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in at least one process."""
        return self.sum({"flag": flag})["flag"] > 0

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up gradients over all processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        sums = flat.split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Stack the rows of all processes, and return the offset of this process's own rows.

        All processes must have the same number of rows. Gradients flow back from every process to
        the one that a row comes from.
        """
        if self.size == 1:
            return rows, 0
        return _Gather.apply(rows, self.size, self.rank), self.rank * len(rows)

    def collect(self, items: Sequence[Any]) -> list[Any]:
        """Return the items of all processes, those of the first process first."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass adds up the gradients of all processes."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor, size: int, rank: int) -> torch.Tensor:
        ctx.own_rows = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.own_rows], None, None


@contextmanager
def distributed(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun there is one process.

    The processes leave each other when the context ends. A process group that already exists is
    used and left as it is.
    """
    own_device = choose_device(device)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if n_processes == 1 and not dist.is_initialized():
        yield Processes(0, 1, own_device)
        return
    if own_device.type == "cuda" and own_device.index is None:
        own_device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    starts_group = not dist.is_initialized()
    if starts_group:
        backend = "nccl" if own_device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    if own_device.type == "cuda":
        torch.cuda.set_device(own_device)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), own_device)
    finally:
        if starts_group:
            dist.destroy_process_group()
