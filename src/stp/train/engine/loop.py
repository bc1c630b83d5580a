"""The training loop: steps, schedule, checkpoints and validation; it knows neither losses nor data."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from stp._log import logger
from stp.data.samplers import SpotIndex, share
from stp.models.device import autocast
from stp.train.config import LoopConfig
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.processes import Processes
from stp.train.engine.run_dir import RunDir
from stp.train.engine.signals import stop_requests

Batch = dict[str, torch.Tensor]


def fit(
    task: nn.Module,
    dataset: Dataset,
    sampler: Any,
    plan: BatchPlan,
    config: LoopConfig,
    run: RunDir,
    *,
    phase: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
    patience: int | None = None,
    keep: Callable[[dict[str, float]], None],
) -> None:
    """Train one phase to its end, from wherever the run directory stands.

    Parameters
    ----------
    task
        Batch to losses; see `stp.train.tasks`.
    dataset, sampler
        The sampler's `batches(epoch)` are what the dataset reads.
    plan, config
        Epochs and batches; everything else.
    run
        Where metrics, checkpoints and the state to resume from are.
    phase
        Number of this phase in the run.
    validate
        Called after each epoch; its "score", the higher the better, decides which weights are kept.
    patience
        Epochs without a better score after which training ends.
    keep
        Writes the weights that users get, with their scores; without `validate`, called once at the end, with none.
    """
    world, device = run.world, run.world.device
    task.to(device).train()
    optimizer = make_optimizer(task, config)
    steps_in = [len(sampler.batches(epoch)) // plan.accumulate for epoch in range(plan.epochs)]
    if not all(steps_in):
        raise ValueError(
            "an epoch has no full batch: too few spots, or none with enough neighbors; add stores"
        )
    step, best, waited = _restore(task, optimizer, run, phase)
    hidden = None if world.is_main else True  # None: shown on a terminal
    bar = tqdm(
        total=sum(steps_in), initial=step, desc=type(task).__name__, unit="step", disable=hidden
    )
    feed = read_batches(dataset, sampler, steps_in, step, plan.accumulate, config, run)
    untouched = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with bar, closing(feed), stop_requests() as asked, untouched:
        for epoch, first in _unfinished(steps_in, step):
            if patience is not None and waited >= patience:
                break
            started, seen = time.perf_counter(), 0
            for picks, batches in islice(feed, steps_in[epoch] - first):
                rate = _set_rate(optimizer, step, sum(steps_in), config)
                _seed(config.seed, phase, step)
                try:
                    losses = training_step(task, optimizer, batches, config, world)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"{error}; the batch is of {_names(dataset, picks)}"
                    ) from error
                step, seen = step + 1, seen + sum(len(one.spots) for one in picks) * world.size
                bar.update()
                bar.set_postfix(loss=f"{losses['loss']:.3f}")
                last = step == sum(steps_in[: epoch + 1])
                if step % config.log_every == 0 or last:
                    speed = seen / (time.perf_counter() - started)
                    where = {"phase": phase, "epoch": epoch, "step": step}
                    run.log(
                        **where,
                        split="train",
                        **losses,
                        learning_rate=rate,
                        spots_per_second=round(speed, 1),
                    )
                stopping = world.any(bool(asked))
                if (step % config.checkpoint_every == 0 or stopping) and not last:
                    _checkpoint(task, optimizer, run, phase, step, best, waited)
                if stopping and not last:
                    raise SystemExit(0)
            scores = _validate(task, run, {"phase": phase, "epoch": epoch, "step": step}, validate)
            better = bool(scores) and (best is None or scores["score"] > best)
            best, waited = (scores["score"], 0) if better else (best, waited + 1)
            if better and world.is_main:
                keep(scores)
            if bar.disable and world.is_main:
                logger.info(
                    _told(
                        f"{type(task).__name__}: epoch {epoch + 1} of {plan.epochs}", losses, scores
                    )
                )
            _checkpoint(task, optimizer, run, phase, step, best, waited)
            if world.any(bool(asked)):
                raise SystemExit(0)
    if validate is None and world.is_main:
        keep({})
    run.checkpoint(phase=phase + 1, step=0, best=None, task=task.state_dict(), optimizer=None)


def make_optimizer(task: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves biases, norms and the logit scale alone."""
    parameters = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(step: int, total: int, config: LoopConfig) -> float:
    """Linear warm-up, then a cosine down to the minimum, if there is one."""
    warmup = min(config.warmup_steps, total // 10)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    lowest = config.learning_rate if config.min_learning_rate is None else config.min_learning_rate
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return lowest + (config.learning_rate - lowest) * (1 + math.cos(math.pi * progress)) / 2


def training_step(
    task: Any,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    config: LoopConfig,
    world: Processes,
) -> dict[str, float]:
    """Take one optimizer step over some batches; every loss is a mean over all items of all processes.

    Raises
    ------
    FloatingPointError
        The loss or its gradient is not finite; weights are as before.
    """
    counts = [task.counts(batch) for batch in batches]
    totals = world.sum({name: sum(count[name] for count in counts) for name in counts[0]})
    parts = len(batches) * world.size
    sums: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    for batch, count in zip(batches, counts, strict=True):
        with autocast(world.device, config.precision):
            losses = task(
                {name: tensor.to(world.device, non_blocking=True) for name, tensor in batch.items()}
            )
        share = {name: count[name] / totals[name] for name in totals}
        loss = sum(losses[name] * share[name] for name in totals)
        loss.backward()
        for name, value in {**losses, "loss": loss * parts}.items():
            sums[name] = sums.get(name, 0.0) + value.item() * share.get(name, 1 / parts)
    sums = world.sum(sums)
    if not math.isfinite(sums["loss"]):
        raise FloatingPointError(f"the loss is {sums['loss']}, of these: {sums}")
    world.sum_gradients(task.parameters())
    if not torch.isfinite(nn.utils.clip_grad_norm_(task.parameters(), config.clip_norm)):
        raise FloatingPointError(f"the gradient is not finite at these losses: {sums}")
    optimizer.step()
    return sums


def _restore(
    task: nn.Module, optimizer: torch.optim.Optimizer, run: RunDir, phase: int
) -> tuple[int, float | None, int]:
    state = run.state
    if state["task"] is not None:
        task.load_state_dict(state["task"])
    if state["phase"] != phase:
        return 0, None, 0
    if state["optimizer"] is not None:
        optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["best"], state.get("waited", 0)


def _unfinished(steps_in: list[int], step: int) -> Iterator[tuple[int, int]]:
    """Yield the epochs that are not done, each with the number of its first step to take."""
    for epoch, n_steps in enumerate(steps_in):
        first = max(0, step - sum(steps_in[:epoch]))
        if first < n_steps:
            yield epoch, first


def read_batches(
    dataset: Dataset,
    sampler: Any,
    steps_in: list[int],
    step: int,
    accumulate: int,
    config: LoopConfig,
    run: RunDir,
) -> Generator[tuple[list[SpotIndex], list[Batch]], None, None]:
    """Yield what this process reads for each step that is left, and the batches that were read.

    Workers start once, and read ahead across the end of an epoch.
    """
    asked: deque[SpotIndex] = deque()

    def ask() -> Iterator[SpotIndex]:
        for epoch, first in _unfinished(steps_in, step):
            for spots in sampler.batches(epoch)[first * accumulate : steps_in[epoch] * accumulate]:
                asked.append(
                    SpotIndex(epoch, share(spots, sampler.unit, run.world.rank, run.world.size))
                )
                yield asked[-1]

    how = {"pin_memory": torch.cuda.is_available(), **_workers(config.n_workers, run)}
    loader = iter(DataLoader(dataset, batch_size=None, sampler=ask(), **how))
    while batches := list(islice(loader, accumulate)):
        yield [asked.popleft() for _ in batches], batches


def _workers(n_workers: int, run: RunDir) -> dict[str, Any]:
    """Say how workers start: on Linux as forks, which have imported all, elsewhere as the platform likes it."""
    if not n_workers:
        return {}
    context = "fork" if sys.platform == "linux" else None
    return {
        "num_workers": n_workers,
        "multiprocessing_context": context,
        "worker_init_fn": run.init_worker,
    }


def _names(dataset: Any, picks: list[SpotIndex]) -> str:
    """Name the stores that some batches were read from."""
    stores = np.unique(np.concatenate([one.spots[:, 0] for one in picks]))
    return ", ".join(str(dataset.stores[store].path) for store in stores)


def _seed(*parts: int) -> None:
    """Make what a backbone draws at random (drop path) depend on the step, never on the state of a process."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


def _set_rate(optimizer: torch.optim.Optimizer, step: int, total: int, config: LoopConfig) -> float:
    rate = learning_rate(step, total, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _validate(
    task: nn.Module, run: RunDir, where: dict[str, int], validate: Callable | None
) -> dict[str, float]:
    """Return the scores after an epoch, and log them; none where nothing is validated with."""
    if validate is None:
        return {}
    task.eval()
    scores = validate()
    task.train()
    run.log(**where, split="validation", **scores)
    return scores


def _told(epoch: str, losses: dict[str, float], scores: dict[str, float]) -> str:
    """Say in a log file what a bar shows on a terminal."""
    told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if name != "score")
    return f"{epoch}, loss {losses['loss']:.3f}" + (f"; validation: {told}" if told else "")


def _checkpoint(
    task, optimizer, run: RunDir, phase: int, step: int, best: float | None, waited: int
) -> None:
    weights = {"task": task.state_dict(), "optimizer": optimizer.state_dict()}
    run.checkpoint(phase=phase, step=step, best=best, waited=waited, **weights)
