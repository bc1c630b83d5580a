"""Train on what frozen encoders made of spots: arrays of several tables, their batches, and the run around them."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from stp.data.samplers import SpotIndex, SpotSampler
from stp.models.saved.pretrained import Pretrained, save_with_scores
from stp.train.config import AdaptConfig, RegressionConfig
from stp.train.engine.batch_plan import fitted
from stp.train.engine.loop import fit
from stp.train.engine.processes import distributed
from stp.train.engine.run_dir import RunDir, settings

BATCH = 4096  # spots validated at a time


class Source(NamedTuple):
    """A table, by name."""

    path: str


class SpotArrays(Dataset):
    """Arrays of the spots of several tables, read in batches.

    Parameters
    ----------
    names
        Of the tables.
    arrays
        By name, one array per table with a row per spot. Spots of which a value is missing are left out.
    """

    def __init__(self, names: list[str], arrays: Mapping[str, list[np.ndarray]]) -> None:
        lengths = [len(one) for one in next(iter(arrays.values()))]
        self.stores, self.edges = [Source(name) for name in names], np.cumsum([0, *lengths])
        self.arrays = {
            name: np.concatenate([*parts]).astype(np.float32) for name, parts in arrays.items()
        }
        whole = np.all([np.isfinite(array).all(axis=1) for array in self.arrays.values()], axis=0)
        self.rows = [np.flatnonzero(part) for part in np.split(whole, self.edges[1:-1])]
        if not whole.any():
            raise ValueError(
                f"no spot of {', '.join(names)} has all of {list(arrays)}: values are missing everywhere"
            )

    def __getitem__(self, picks: SpotIndex) -> dict[str, torch.Tensor]:
        """Return the arrays of some spots (m, ...) by name."""
        index = self.edges[picks.spots[:, 0]] + picks.spots[:, 1]
        return {name: torch.from_numpy(array[index]) for name, array in self.arrays.items()}

    def of(self, table: int) -> list[dict[str, torch.Tensor]]:
        """Return all whole spots of a table in batches."""
        rows = np.split(self.rows[table], range(BATCH, len(self.rows[table]), BATCH))
        return [
            self[SpotIndex(0, np.column_stack([np.full(len(part), table), part]))]
            for part in rows
            if len(part)
        ]

    @property
    def digest(self) -> str:
        """Tell these values from others."""
        found = hashlib.sha256()
        for array in self.arrays.values():
            found.update(array.data)
        return found.hexdigest()


def train_on(
    dataset: SpotArrays,
    held_out: SpotArrays | None,
    output_dir: str | Path,
    *,
    make_task: Callable[[Any], nn.Module],
    score: Callable[[Any, SpotArrays], dict[str, float]],
    model: Pretrained,
    config: AdaptConfig | RegressionConfig,
    about: dict[str, Any],
    resume: bool,
) -> None:
    """Train parts of a model in a run directory; the best weights by validation are kept, or the last without it.

    `make_task` is given the processes that train, `score` the task.
    """
    n = sum(map(len, dataset.rows))
    tables = f"{n} spots of {', '.join(store.path for store in dataset.stores)}"
    model.card = dataclasses.replace(
        model.card, trained_on=(*model.card.trained_on, f"{about['stage']}: {tables}")
    )
    data = [one.digest if one is not None else None for one in (dataset, held_out)]
    with distributed(config.device) as world:
        with RunDir(
            output_dir, settings(config, world, **about, data=data), resume=resume, world=world
        ) as run:
            if run.state["phase"] > 0:
                return
            task, plan = make_task(world), fitted(dataset, config, world, stacklevel=4)
            sampler = SpotSampler(dataset.rows, plan.batch_size, config.seed)

            @torch.inference_mode()
            def validate(spots: SpotArrays) -> dict[str, float]:
                return score(task, spots)

            checked: dict[str, Any] = {}
            if held_out is not None:
                checked = {"validate": partial(validate, held_out), "patience": config.patience}
            fit(
                task,
                dataset,
                sampler,
                plan,
                config,
                run,
                **checked,
                keep=partial(save_with_scores, model, run.path),
            )
            run.finish(1)
