import os

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from stp.train.engine.processes import Processes
from stp.train.engine.reading import read_batches
from stp.train.engine.run_dir import RunDir


class Numbers(Dataset):
    """Return the spots to read, their epoch, and the process that reads them."""

    def __getitem__(self, index):
        return {"spots": torch.tensor(index.spots), "epoch": index.epoch, "process": os.getpid()}


class TwoSpots:
    """Batches of two spots, other ones in each epoch."""

    unit = 1

    def batches(self, epoch):
        return [np.array([[epoch, row], [epoch, row + 1]]) for row in range(0, 10, 2)]


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_steps_that_are_left_are_read_in_order_by_workers_that_start_once(n_workers, tmp_path):
    alone = Processes(0, 1, torch.device("cpu"))
    with RunDir(tmp_path, {}, resume=True, processes=alone) as run:
        reader = read_batches(
            Numbers(),
            TwoSpots(),
            run,
            steps_per_epoch=[2, 2, 2],
            n_taken=1,
            accumulate=2,
            n_workers=n_workers,
        )
        steps = list(reader)
    # An epoch has five batches; two steps of two batches each leave the last one out.
    assert [[index.epoch for index in indices] for indices, _ in steps] == [
        [0, 0],
        [1, 1],
        [1, 1],
        [2, 2],
        [2, 2],
    ]
    for indices, batches in steps:
        for index, batch in zip(indices, batches, strict=True):
            assert index.epoch == batch["epoch"]
            np.testing.assert_array_equal(index.spots, batch["spots"])
    assert [indices[0].spots[0, 1] for indices, _ in steps] == [4, 0, 4, 0, 4]
    processes = {batch["process"] for _, batches in steps for batch in batches}
    assert len(processes) == max(1, n_workers)
    assert (os.getpid() in processes) == (n_workers == 0)
