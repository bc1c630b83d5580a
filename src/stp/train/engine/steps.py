"""One optimizer step: gradients over batches and processes, and the learning rate."""

import math

import torch
from torch import nn

from stp.models.device import autocast
from stp.train.engine.config import LoopConfig
from stp.train.engine.processes import Processes
from stp.train.engine.protocols import Batch, Task


def make_optimizer(task: Task, config: LoopConfig) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices, but no biases, norms or logit scale."""
    parameters = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(step: int, n_steps: int, config: LoopConfig) -> float:
    """Return the rate of a step: a linear warm-up, then a cosine down to the minimum, if any."""
    n_warmup = min(config.warmup_steps, n_steps // 10)
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    lowest = config.learning_rate if config.min_learning_rate is None else config.min_learning_rate
    progress = min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
    return lowest + (config.learning_rate - lowest) * (1 + math.cos(math.pi * progress)) / 2


def training_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    config: LoopConfig,
    processes: Processes,
) -> dict[str, float]:
    """Take one optimizer step over some batches, and return the losses.

    Every loss is a mean over all items of all batches and processes.

    Raises
    ------
    FloatingPointError
        If the loss or its gradient is not finite; weights are then unchanged.
    """
    # 1. Count the items of each loss in all batches of all processes.
    counts = [task.counts(batch) for batch in batches]
    totals = processes.sum({name: sum(count[name] for count in counts) for name in counts[0]})
    n_parts = len(batches) * processes.size
    # 2. Add up gradients and losses; each batch weighs as much as it has items.
    sums: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    for batch, count in zip(batches, counts, strict=True):
        on_device = {
            name: tensor.to(processes.device, non_blocking=True) for name, tensor in batch.items()
        }
        with autocast(processes.device, config.precision):
            losses = task(on_device)
        # A loss without any item, such as that of a missing label, weighs nothing.
        weights = {name: count[name] / total if total else 0.0 for name, total in totals.items()}
        weighted = [losses[name] * weight for name, weight in weights.items()]
        loss = sum(weighted[1:], start=weighted[0])
        loss.backward()
        for name, value in {**losses, "loss": loss * n_parts}.items():
            sums[name] = sums.get(name, 0.0) + value.item() * weights.get(name, 1 / n_parts)
    sums = processes.sum(sums)
    sums = {name: value for name, value in sums.items() if totals.get(name, 1)}
    # 3. Step, unless that would spoil the weights.
    if not math.isfinite(sums["loss"]):
        raise FloatingPointError(f"the loss is {sums['loss']}, of these: {sums}")
    processes.sum_gradients(task.parameters())
    norm = nn.utils.clip_grad_norm_(task.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"the gradient is not finite at these losses: {sums}")
    optimizer.step()
    return sums
