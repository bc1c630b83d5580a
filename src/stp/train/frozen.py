"""Train on the features of frozen encoders: arrays of several tables, and the run around them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.utils.data

from stp.data.samplers import SpotIndex, SpotSampler
from stp.models.saved.pretrained import Pretrained, save_with_scores
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.loop import Training, run_training
from stp.train.engine.processes import Processes, distributed
from stp.train.engine.protocols import Batch, Task
from stp.train.engine.run_dir import RunDir, run_settings
from stp.train.frozen_config import AdaptConfig, RegressionConfig

VALIDATION_BATCH = 4096  # spots

AnyTask = TypeVar("AnyTask", bound=Task)


class SpotArrays(torch.utils.data.Dataset):
    """Arrays of the spots of several tables, read in batches.

    Parameters
    ----------
    names
        Names of the tables.
    arrays
        Arrays by name; each is a list with one array per table and a row per spot. Spots with a
        missing value are left out.
    """

    def __init__(self, names: list[str], arrays: Mapping[str, list[np.ndarray]]) -> None:
        lengths = [len(part) for part in next(iter(arrays.values()))]
        self.names = names
        self.offsets = np.cumsum([0, *lengths])
        self.arrays = {
            name: np.concatenate(parts).astype(np.float32) for name, parts in arrays.items()
        }
        is_finite = [np.isfinite(array).all(axis=1) for array in self.arrays.values()]
        is_complete = np.all(is_finite, axis=0)
        self.rows = [np.flatnonzero(part) for part in np.split(is_complete, self.offsets[1:-1])]
        if not is_complete.any():
            raise ValueError(
                f"no spot of {', '.join(names)} has all of {list(arrays)}: "
                "values are missing everywhere"
            )

    def __getitem__(self, index: SpotIndex) -> Batch:
        """Return the arrays of some spots (m, ...) by name."""
        rows = self.offsets[index.spots[:, 0]] + index.spots[:, 1]
        return {name: torch.from_numpy(array[rows]) for name, array in self.arrays.items()}

    def batches_of(self, table: int) -> list[Batch]:
        """Return all complete spots of a table in batches."""
        rows = self.rows[table]
        parts = np.split(rows, range(VALIDATION_BATCH, len(rows), VALIDATION_BATCH))
        return [
            self[SpotIndex(0, np.column_stack([np.full(len(part), table), part]))]
            for part in parts
            if len(part)
        ]

    @property
    def digest(self) -> str:
        """Hash of all values."""
        digest = hashlib.sha256()
        for array in self.arrays.values():
            digest.update(array.data)
        return digest.hexdigest()


def train_on(
    dataset: SpotArrays,
    validation: SpotArrays | None,
    output_dir: str | Path,
    *,
    make_task: Callable[[Processes], AnyTask],
    score: Callable[[AnyTask, SpotArrays], dict[str, float]],
    model: Pretrained,
    config: AdaptConfig | RegressionConfig,
    inputs: dict[str, Any],
    resume: bool,
    origin: str = "",
) -> None:
    """Train parts of a model in a run directory.

    Parameters
    ----------
    dataset
        Spots to train on.
    validation
        Spots that choose the best epoch; without them, the last epoch is saved.
    output_dir
        Run directory.
    make_task
        Function that returns the task for the processes that train.
    score
        Function that returns the scores of a task on the validation spots.
    model
        Model that the task trains a part of; it is saved in the run directory.
    config
        Settings of the training.
    inputs
        The stage and what it starts from, as JSON values; "stage" is its name.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.
    origin
        Collection that the spots are from, in a line; "" without.
    """
    n_spots = sum(map(len, dataset.rows))
    line = f"{inputs['stage']}: {n_spots} spots of {', '.join(dataset.names)}"
    if origin:
        line += f", {origin}"
    model.card = replace(model.card, trained_on=(*model.card.trained_on, line))
    digests = [dataset.digest, None if validation is None else validation.digest]
    with distributed(config.device) as processes:
        settings = run_settings(config, {**inputs, "data": digests})
        with RunDir(output_dir, settings, resume=resume, processes=processes) as run:
            if run.checkpoint.phase > 0:
                return
            task = make_task(processes)
            plan = BatchPlan.for_corpus(dataset.rows, config, processes)
            validate = None if validation is None else partial(score, task, validation)
            run_training(
                Training(
                    task=task,
                    dataset=dataset,
                    sampler=SpotSampler(dataset.rows, plan.batch_size, config.seed),
                    plan=plan,
                    config=config,
                    run=run,
                    save_model=partial(save_with_scores, model, run.path),
                    validate=validate,
                    patience=config.patience,
                )
            )
            run.finish(1)
