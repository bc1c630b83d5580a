"""Read the batches of each step, in this process or ahead of it in workers."""

import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from stp.data.samplers import SpotIndex, share
from stp.train.engine.protocols import Batch, Dataset, Sampler
from stp.train.engine.run_dir import RunDir
from stp.train.engine.signals import ignore_stop_signals


def read_batches(
    dataset: Dataset,
    sampler: Sampler,
    run: RunDir,
    *,
    steps_per_epoch: Sequence[int],
    n_taken: int,
    accumulate: int,
    n_workers: int,
) -> Generator[tuple[list[SpotIndex], list[Batch]], None, None]:
    """Yield, for each step that is left, the spots that this process reads and their batches.

    Workers start once, and read ahead across the end of an epoch.

    Parameters
    ----------
    dataset
        Reads the spots.
    sampler
        Decides which spots make each batch.
    run
        Run directory, whose processes share each batch.
    steps_per_epoch
        Number of steps of each epoch.
    n_taken
        Number of steps that were taken before, counted over all epochs.
    accumulate
        Number of batches per optimizer step.
    n_workers
        Number of worker processes that read batches ahead.
    """
    processes = run.processes
    unread: deque[SpotIndex] = deque()

    def batches_to_read() -> Iterator[SpotIndex]:
        for epoch, first_step in epochs_left(steps_per_epoch, n_taken):
            first_batch = first_step * accumulate
            last_batch = steps_per_epoch[epoch] * accumulate
            for spots in sampler.batches(epoch)[first_batch:last_batch]:
                own_spots = share(spots, sampler.unit, processes.rank, processes.size)
                index = SpotIndex(epoch, own_spots)
                unread.append(index)
                yield index

    # On Linux workers are forks, which have imported everything already.
    is_forking = n_workers > 0 and sys.platform == "linux"
    loader = DataLoader(
        cast(Any, dataset),  # DataLoader asks for its own class, but only indexes it
        batch_size=None,
        sampler=batches_to_read(),
        pin_memory=torch.cuda.is_available(),
        num_workers=n_workers,
        multiprocessing_context="fork" if is_forking else None,
        worker_init_fn=ignore_stop_signals,
    )
    batches = iter(loader)
    while step_batches := list(islice(batches, accumulate)):
        yield [unread.popleft() for _ in step_batches], step_batches


def epochs_left(steps_per_epoch: Sequence[int], n_taken: int) -> Iterator[tuple[int, int]]:
    """Yield the epochs with steps left, each with the number of its first step to take."""
    for epoch, n_steps in enumerate(steps_per_epoch):
        first_step = max(0, n_taken - sum(steps_per_epoch[:epoch]))
        if first_step < n_steps:
            yield epoch, first_step
