from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.test_bag_file import write_source

from stp.data.bag_file import BagFile
from stp.data.bags import Bags
from stp.data.samplers import SpotIndex, SpotSampler, share

SIZES = {"P2": 3, "P1": 12, "P3": 7, "P4": 20}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> BagFile:
    return write_bags(tmp_path_factory.mktemp("bags"), list(SIZES))


def write_bags(folder: Path, patients: list[str]) -> BagFile:
    """Write the bags of patients; each value says whose it is, and which row."""
    sources = []
    for patient in patients:
        values = 100 * int(patient[1]) + np.arange(SIZES[patient], dtype=np.float16)
        sources.append(write_source(folder, patient, patient, np.tile(values[:, None], (1, 4))))
    return BagFile.write(sources, folder)


def index(*patients: int, epoch: int = 0) -> SpotIndex:
    return SpotIndex(epoch, np.array([(patient, 0) for patient in patients]).reshape(-1, 2))


def test_a_batch_is_ragged_and_has_all_tiles_without_a_limit(file):
    labels = {"event": torch.tensor([0, 1, 0, 1]), "days": torch.arange(8.0).reshape(4, 2)}
    batch = Bags(file, labels)[index(2, 0)]
    assert set(batch) == {"features", "offsets", "event", "days"}
    assert batch["offsets"].tolist() == [0, 7, 10]
    assert batch["features"].dtype == torch.float16
    expected = [*(300 + np.arange(7)), *(200 + np.arange(3))]
    assert batch["features"][:, 3].tolist() == expected
    assert batch["event"].tolist() == [0, 0]
    assert batch["days"].tolist() == [[4, 5], [0, 1]]


def test_tiles_are_drawn_without_replacement_and_in_order(file):
    bags = Bags(file, max_tiles=7, seed=3)
    for epoch in range(20):
        batch = bags[index(0, 1, 2, epoch=epoch)]
        assert batch["offsets"].tolist() == [0, 3, 10, 17]
        assert batch["features"][:3, 0].tolist() == [200, 201, 202]  # fewer than the limit
        drawn = batch["features"][3:10, 0].tolist()
        assert drawn == sorted(set(drawn))
        assert set(drawn) <= set(range(100, 112))
        assert batch["features"][10:, 0].tolist() == list(range(300, 307))


def test_each_tile_is_drawn_equally_often(file):
    bags = Bags(file, max_tiles=3)
    counts = np.zeros(12)
    for epoch in range(2000):
        drawn = bags[index(1, epoch=epoch)]["features"][:, 0].numpy().astype(int) - 100
        counts[drawn] += 1
    # Binomial: 500 +- 5 standard deviations.
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_drawn_tiles_depend_on_seed_epoch_and_patient_only(file, tmp_path):
    def draw(bags: Bags, *numbers: int, epoch: int = 0) -> list[float]:
        return bags[index(*numbers, epoch=epoch)]["features"][-5:, 0].tolist()

    bags = Bags(file, max_tiles=5, seed=1)
    drawn = draw(bags, 3)
    assert draw(bags, 1, 3) == draw(Bags(file, max_tiles=5, seed=1), 3) == drawn
    assert draw(bags, 3, epoch=1) != drawn
    assert draw(Bags(file, max_tiles=5, seed=2), 3) != drawn
    alone = write_bags(tmp_path, ["P4"])  # whose number is another one
    assert draw(Bags(alone, max_tiles=5, seed=1), 0) == drawn


def test_a_sampler_of_spots_draws_each_patient_once(file):
    rows = [np.zeros(n, int) for n in (1, 1, 0, 1)]  # the third is left out
    sampler = SpotSampler(rows, batch_size=1, seed=0)
    batches = sampler.batches(0)
    bags = Bags(file)
    names = [bags.names[batch[0, 0]] for batch in batches]
    assert sorted(names) == ["P1", "P2", "P4"]
    assert [len(bags[SpotIndex(0, batch)]["features"]) for batch in batches] == [
        SIZES[name] for name in names
    ]


def test_a_process_without_patients_gets_an_empty_batch(file):
    spots = share(index(1).spots, 1, rank=1, size=2)
    batch = Bags(file, {"event": torch.arange(4)})[SpotIndex(0, spots)]
    assert batch["features"].shape == (0, 4)
    assert batch["offsets"].tolist() == [0]
    assert batch["event"].shape == (0,)


def test_labels_and_limits_that_do_not_fit_are_refused(file):
    with pytest.raises(ValueError, match="label 'event' has 3 values for 4 patients"):
        Bags(file, {"event": torch.zeros(3)})
    with pytest.raises(ValueError, match="cannot have the name 'offsets'"):
        Bags(file, {"offsets": torch.zeros(4)})
    with pytest.raises(ValueError, match="max_tiles must be positive or None, not 0"):
        Bags(file, max_tiles=0)
