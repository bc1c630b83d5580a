"""The processes that train together: one, or those that torchrun started."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from stp.models.device import choose_device


@dataclass(frozen=True)
class Processes:
    """A process among those that train one model.

    Parameters
    ----------
    rank, size
        Its number and how many there are.
    device
        Where it computes.
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
        """Tell whether it holds in any process."""
        return self.sum({"flag": flag})["flag"] > 0

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up gradients over all processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Stack the rows of all processes, which have as many each, and say where those of this one begin.

        Gradients flow back to the process that a row is of, from all of them.
        """
        if self.size == 1:
            return rows, 0
        return _Gather.apply(rows, self.size, self.rank), self.rank * len(rows)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass adds up what every process asks of a row."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor, size: int, rank: int) -> torch.Tensor:
        ctx.own = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.own], None, None


@contextmanager
def distributed(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started, for as long as the context lasts; without torchrun, be alone.

    A process group that is there already is used, and left as it is.
    """
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if n_ranks == 1 and not dist.is_initialized():
        yield Processes(0, 1, choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    ours = not dist.is_initialized()
    if ours:
        # Processes wait for each other while large stores are ranked.
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=4)
        )
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if ours:
            dist.destroy_process_group()
