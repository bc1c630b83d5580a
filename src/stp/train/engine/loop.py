"""The training loop: epochs, schedule, validation and checkpoints, for any task and data."""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice

import numpy as np
import torch

from stp._log import logger
from stp._progress import Progress, track
from stp.data.samplers import SpotIndex
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.config import LoopConfig
from stp.train.engine.protocols import Batch, Dataset, Sampler, Task
from stp.train.engine.reading import epochs_left, read_batches
from stp.train.engine.run_dir import Checkpoint, RunDir
from stp.train.engine.signals import StopRequest, stop_requests
from stp.train.engine.steps import learning_rate, make_optimizer, training_step


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one phase of a run trains, and on which data.

    Parameters
    ----------
    task
        Turns a batch into losses; see `stp.train.tasks`.
    dataset
        Reads the spots.
    sampler
        Decides which spots make each batch.
    plan
        Number of epochs, and sizes of batches and steps.
    config
        Settings of the training.
    run
        Run directory for metrics and checkpoints.
    save_model
        Writes the model that users get, with its validation scores. It is called after every epoch
        with a better score; without `validate` it is called once, at the end, with no scores.
    validate
        Returns the scores after an epoch. The one called "score" decides which weights are kept;
        higher is better.
    phase
        Number of this phase in the run, from 0.
    patience
        Number of epochs without a better validation score after which training stops.
    """

    task: Task
    dataset: Dataset
    sampler: Sampler
    plan: BatchPlan
    config: LoopConfig
    run: RunDir
    save_model: Callable[[dict[str, float]], None]
    validate: Callable[[], dict[str, float]] | None = None
    phase: int = 0
    patience: int | None = None

    @cached_property
    def steps_per_epoch(self) -> list[int]:
        """Number of steps of each epoch; the batches left over fill no step."""
        epochs = track(
            range(self.plan.epochs), "draw batches", "epoch", is_shown=self.run.processes.is_main
        )
        return [len(self.sampler.batches(epoch)) // self.plan.accumulate for epoch in epochs]


@dataclass
class TrainingState:
    """How far the training is.

    Parameters
    ----------
    optimizer
        The optimizer, which adapts to the gradients as training goes on.
    step
        Number of steps that were taken, counted over all epochs of the phase.
    best_score
        Best validation score; None before the first validation.
    epochs_since_best
        Number of epochs since the best validation score.
    """

    optimizer: torch.optim.Optimizer
    step: int = 0
    best_score: float | None = None
    epochs_since_best: int = 0


def run_training(training: Training) -> None:
    """Train one phase to its end, from the last checkpoint of its run.

    Raises
    ------
    ValueError
        If an epoch has no full batch.
    FloatingPointError
        If a loss or its gradient is not finite; the error names the stores of the batch.
    SystemExit
        With status 0 after a checkpoint, if the process was sent SIGTERM or SIGUSR1.
    """
    config = training.config
    run = training.run
    processes = run.processes
    steps_per_epoch = training.steps_per_epoch
    # 1. Take the task to the device, and both task and optimizer to the last checkpoint.
    training.task.to(processes.device)
    training.task.train()
    if not all(steps_per_epoch):
        raise ValueError(
            "an epoch has no full batch: too few spots, or none with enough neighbors; add stores"
        )
    state = _restore(training)
    # 2. Read batches from there on; nothing is read before the first step asks for it.
    reader = read_batches(
        training.dataset,
        training.sampler,
        run,
        steps_per_epoch=steps_per_epoch,
        n_taken=state.step,
        accumulate=training.plan.accumulate,
        n_workers=config.n_workers,
    )
    progress = Progress(
        sum(steps_per_epoch),
        training.task.title,
        "step",
        is_shown=processes.is_main,
        initial=state.step,
    )
    # 3. Go through the epochs that are left; the caller's random state stays as it was.
    own_devices = [processes.device] if processes.device.type == "cuda" else []
    random_state = torch.random.fork_rng(devices=own_devices)
    with progress, closing(reader), stop_requests() as stop_request, random_state:
        for epoch, first_step in epochs_left(steps_per_epoch, state.step):
            if training.patience is not None and state.epochs_since_best >= training.patience:
                break
            steps = islice(reader, steps_per_epoch[epoch] - first_step)
            losses = _run_epoch(
                training, state, epoch, steps, progress=progress, stop_request=stop_request
            )
            scores = _end_epoch(training, state, epoch)
            if processes.is_main and not progress.has_bar:
                title = f"{training.task.title}: epoch {epoch + 1} of {training.plan.epochs}"
                logger.info(_epoch_summary(title, losses, scores))
            _save_checkpoint(training, state)
            if processes.any(bool(stop_request)):
                raise SystemExit(0)
    # 4. Write the model if validation did not, and let the next phase start from these weights.
    if training.validate is None and processes.is_main:
        training.save_model({})
    run.save_checkpoint(Checkpoint(phase=training.phase + 1, task=training.task.state_dict()))


def _run_epoch(
    training: Training,
    state: TrainingState,
    epoch: int,
    steps: Iterable[tuple[list[SpotIndex], list[Batch]]],
    *,
    progress: Progress,
    stop_request: StopRequest,
) -> dict[str, float]:
    """Take the steps of an epoch that are left, and return the losses of the last one."""
    config = training.config
    processes = training.run.processes
    n_steps = sum(training.steps_per_epoch)
    end_of_epoch = sum(training.steps_per_epoch[: epoch + 1])
    start_time = time.perf_counter()
    n_spots = 0
    losses: dict[str, float] = {}
    for indices, batches in steps:
        # 1. Set the learning rate and the random state, which depend on the step alone.
        rate = learning_rate(state.step, n_steps, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        _seed_step(config.seed, training.phase, state.step)
        # 2. Update the weights.
        try:
            losses = training_step(training.task, state.optimizer, batches, config, processes)
        except FloatingPointError as error:
            names = _store_names(training.dataset, indices)
            raise FloatingPointError(f"{error}; the batch is of {names}") from error
        state.step += 1
        n_spots += sum(len(index.spots) for index in indices) * processes.size
        # 3. Show and log the losses.
        progress.note(f"loss={losses['loss']:.3f}")
        progress.update()
        is_last = state.step == end_of_epoch
        if state.step % config.log_every == 0 or is_last:
            speed = n_spots / (time.perf_counter() - start_time)
            line = {"phase": training.phase, "epoch": epoch, "step": state.step, "split": "train"}
            rates = {"learning_rate": rate, "spots_per_second": round(speed, 1)}
            training.run.log(line | losses | rates)
        # 4. Save a checkpoint now and then, and stop if asked to; after the last step of an epoch
        #    this waits for the validation.
        is_stopping = processes.any(bool(stop_request))
        if (state.step % config.checkpoint_every == 0 or is_stopping) and not is_last:
            _save_checkpoint(training, state)
        if is_stopping and not is_last:
            raise SystemExit(0)
    return losses


def _end_epoch(training: Training, state: TrainingState, epoch: int) -> dict[str, float]:
    """Validate after an epoch, save the model if it is the best so far, and return the scores."""
    if training.validate is None:
        return {}
    # 1. Compute and log the scores.
    training.task.eval()
    scores = training.validate()
    training.task.train()
    line = {"phase": training.phase, "epoch": epoch, "step": state.step, "split": "validation"}
    training.run.log(line | scores)
    # 2. Keep the best model.
    if state.best_score is None or scores["score"] > state.best_score:
        state.best_score = scores["score"]
        state.epochs_since_best = 0
        if training.run.processes.is_main:
            training.save_model(scores)
    else:
        state.epochs_since_best += 1
    return scores


def _restore(training: Training) -> TrainingState:
    """Load the last checkpoint into the task and a new optimizer."""
    state = TrainingState(make_optimizer(training.task, training.config))
    checkpoint = training.run.checkpoint
    if checkpoint.task is not None:
        training.task.load_state_dict(checkpoint.task)
    if checkpoint.phase != training.phase:
        return state
    if checkpoint.optimizer is not None:
        state.optimizer.load_state_dict(checkpoint.optimizer)
    state.step = _steps_to(training, checkpoint)
    state.best_score = checkpoint.best_score
    state.epochs_since_best = checkpoint.epochs_since_best
    return state


def _steps_to(training: Training, checkpoint: Checkpoint) -> int:
    """Return the number of steps to the place of a checkpoint in the data.

    It differs from the step of the checkpoint if the run had another number of processes. A part of
    a step is taken again, and the last step of an epoch, so that the epoch ends with validation.
    """
    steps = training.steps_per_epoch
    n_before = sum(steps[: checkpoint.epoch])
    if not checkpoint.n_spots:
        return n_before
    n_in_epoch = checkpoint.n_spots // training.plan.spots_per_step
    return n_before + min(n_in_epoch, steps[checkpoint.epoch] - 1)


def _save_checkpoint(training: Training, state: TrainingState) -> None:
    steps = training.steps_per_epoch
    epoch = sum(end <= state.step for end in accumulate(steps))
    training.run.save_checkpoint(
        Checkpoint(
            phase=training.phase,
            step=state.step,
            epoch=epoch,
            n_spots=(state.step - sum(steps[:epoch])) * training.plan.spots_per_step,
            best_score=state.best_score,
            epochs_since_best=state.epochs_since_best,
            task=training.task.state_dict(),
            optimizer=state.optimizer.state_dict(),
        )
    )


def _seed_step(seed: int, phase: int, step: int) -> None:
    """Make what a backbone draws at random (drop path) depend on the step alone."""
    sequence = np.random.SeedSequence((seed, phase, step))
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def _store_names(dataset: Dataset, indices: list[SpotIndex]) -> str:
    """List the stores that some batches were read from."""
    stores = np.unique(np.concatenate([index.spots[:, 0] for index in indices]))
    return ", ".join(dataset.names[store] for store in stores)


def _epoch_summary(title: str, losses: dict[str, float], scores: dict[str, float]) -> str:
    """Describe an epoch for a log file, which has no progress bar."""
    parts = [f"{name} {value:.3f}" for name, value in scores.items() if name != "score"]
    validation = f"; validation: {', '.join(parts)}" if parts else ""
    return f"{title}, loss {losses['loss']:.3f}{validation}"
