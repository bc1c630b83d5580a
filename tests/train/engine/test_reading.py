import os

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from stp.train import AlignConfig
from stp.train.engine.loop import read_batches
from stp.train.engine.processes import Processes
from stp.train.engine.run_dir import RunDir


class Numbers(Dataset):
    """Say which spots were asked for, in which epoch, and which process answers."""

    def __getitem__(self, picks):
        return {"spots": torch.tensor(picks.spots), "epoch": picks.epoch, "process": os.getpid()}


class TwoSpots:
    """Batches of two spots, other ones in each epoch."""

    unit = 1

    def batches(self, epoch):
        return [np.array([[epoch, row], [epoch, row + 1]]) for row in range(0, 10, 2)]


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_steps_that_are_left_are_read_in_order_by_workers_that_start_once(n_workers, tmp_path):
    config = AlignConfig(n_workers=n_workers)
    with RunDir(tmp_path, {}, resume=True, world=Processes(0, 1, torch.device("cpu"))) as run:
        steps = list(read_batches(Numbers(), TwoSpots(), [2, 2, 2], 1, 2, config, run))
    # Five batches an epoch: of two steps of two batches each the last is left out.
    assert [[one.epoch for one in picks] for picks, _ in steps] == [
        [0, 0],
        [1, 1],
        [1, 1],
        [2, 2],
        [2, 2],
    ]
    for picks, batches in steps:
        for one, batch in zip(picks, batches, strict=True):
            assert one.epoch == batch["epoch"]
            np.testing.assert_array_equal(one.spots, batch["spots"])
    assert [picks[0].spots[0, 1] for picks, _ in steps] == [4, 0, 4, 0, 4]
    processes = {batch["process"] for _, batches in steps for batch in batches}
    assert len(processes) == max(1, n_workers)
    assert (os.getpid() in processes) == (n_workers == 0)
