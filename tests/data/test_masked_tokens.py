import subprocess
import sys

import numpy as np
import pytest
import torch

from stp.data.masked_tokens import TokenDataset
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.genes.special_tokens import MASK_ID, PAD_ID


@pytest.fixture
def tokens(stores, vocabulary, ranked):
    def make(seed=0, fraction=0.15):
        opened = [SpotStore(path) for path in stores[:2]]
        return TokenDataset(opened, vocabulary, ranked(opened, 20), fraction=fraction, seed=seed)

    return make


def spot_index(*spots, epoch=0):
    return SpotIndex(epoch, np.array(spots))


def test_a_batch_of_tokens(tokens, vocabulary):
    dataset = tokens()
    dataset.tokens[1][5, 3:] = 0  # a spot with three genes
    batch = dataset[spot_index((1, 5), (0, 3), (0, 7))]
    assert {name: (tuple(values.shape), values.dtype) for name, values in batch.items()} == {
        "inputs": ((3, 20), torch.int64),
        "targets": ((3, 20), torch.int64),
        "chosen": ((3, 20), torch.bool),
    }
    assert (batch["targets"][0, 3:] == PAD_ID).all()
    assert (batch["inputs"][0, 3:] == PAD_ID).all()
    assert batch["chosen"].sum(dim=1).tolist() == [1, 3, 3]
    np.testing.assert_array_equal(batch["targets"][1], dataset.tokens[0][3])
    assert (batch["inputs"] == batch["targets"])[~batch["chosen"]].all()
    hidden = batch["inputs"][batch["chosen"]]
    assert (
        (hidden == MASK_ID) | ((hidden >= vocabulary.n_special) & (hidden < vocabulary.n_tokens))
    ).all()


def test_a_batch_is_as_long_as_its_longest_spot(tokens):
    dataset = tokens()
    dataset.tokens[0][3, 8:] = 0
    dataset.tokens[0][4, 4:] = 0
    assert dataset[spot_index((0, 3), (0, 4))]["inputs"].shape == (2, 8)


def test_masks_depend_on_seed_store_spot_and_epoch_alone(tokens):
    first = tokens(fraction=0.5)[spot_index((0, 3), (1, 3), (0, 4))]
    # Another dataset, in which the spots have another order and other neighbors in the batch.
    again = tokens(fraction=0.5)[spot_index((0, 9), (1, 3), (0, 3))]
    for name in first:
        assert torch.equal(first[name][0], again[name][2])
        assert torch.equal(first[name][1], again[name][1])

    def chosen(seed=0, epoch=0, spot=(0, 3)):
        return tokens(seed, fraction=0.5)[spot_index(spot, epoch=epoch)]["chosen"][0].tolist()

    masks = [chosen(), chosen(seed=1), chosen(epoch=1), chosen(spot=(1, 3)), chosen(spot=(0, 4))]
    assert len(set(map(tuple, masks))) == 5


@pytest.mark.parametrize("block_rows", [7, 4096])
def test_log_frequency_by_hand(tokens, vocabulary, block_rows):
    dataset = tokens()
    expected = np.ones(vocabulary.n_tokens)
    for token in np.concatenate([dataset.tokens[0].ravel(), dataset.tokens[1].ravel()]):
        expected[token] += token >= vocabulary.n_special
    log_frequency = dataset.log_frequency(block_rows=block_rows)
    assert log_frequency.dtype == torch.float32
    np.testing.assert_allclose(log_frequency.exp().numpy(), expected / expected.sum(), rtol=1e-5)


def test_workers_start_without_what_only_ranking_needs():
    code = (
        "import sys, stp.data.pairs; print({'numba', 'scipy', 'timm', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
