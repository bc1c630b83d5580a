import warnings

import numpy as np
import pytest
import torch

from stp.data.masked_tokens import TokenDataset
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.train import AlignConfig
from stp.train.tasks import MaskedGenes
from stp.train.validation import masked_loss, recall, warn_if_epoch_is_chance

CONFIG = AlignConfig(precision="fp32")


@pytest.fixture
def opened(stores):
    return [SpotStore(path) for path in stores[1:]]


@pytest.fixture
def token_dataset(opened, vocabulary, ranked):
    return TokenDataset(opened, vocabulary, ranked(opened, 32), fraction=0.15, seed=0)


@pytest.fixture
def pair_dataset(opened, ranked):
    return PairDataset(opened, {"genes": ranked(opened, 32)}, image_size=32, um_per_px=4.0, seed=0)


def test_masked_loss_is_over_all_tokens_of_all_stores(stamp, token_dataset):
    rows = [np.arange(0, 70), np.arange(90, 100)]
    spots = np.concatenate(
        [np.column_stack([np.full(len(r), store), r]) for store, r in enumerate(rows)]
    )
    with torch.no_grad():
        expected = MaskedGenes(stamp.gene_encoder)(token_dataset[SpotIndex(0, spots)])[
            "masked"
        ].item()
    result = masked_loss(stamp.gene_encoder, token_dataset, rows, CONFIG)
    assert result["masked"] == pytest.approx(expected, rel=1e-5)
    assert result["score"] == -result["masked"]
    assert masked_loss(stamp.gene_encoder, token_dataset, rows, CONFIG) == result


def test_recall_is_within_each_slide_and_averaged_over_slides(stamp, pair_dataset):
    all_rows, few, none = np.arange(100), np.arange(20), np.arange(0)
    both = recall(stamp, pair_dataset, [all_rows, few], CONFIG)
    first = recall(stamp, pair_dataset, [all_rows, none], CONFIG)
    second = recall(stamp, pair_dataset, [none, few], CONFIG)
    for name in ("recall@1", "recall@5", "recall@10", "chance@5"):
        assert both[name] == pytest.approx((first[name] + second[name]) / 2)
    assert (first["chance@5"], second["chance@5"]) == (0.05, 0.25)
    assert both["score"] == both["recall@5"]


@torch.no_grad()
def test_recall_counts_from_patch_to_genes(stamp, pair_dataset):
    rows = np.arange(10, 60)
    tokens = torch.from_numpy(pair_dataset.targets["genes"][1][rows].astype(np.int64))
    _, genes = stamp.encode_genes(tokens)
    _, patches = stamp.encode_images(torch.from_numpy(pair_dataset.patches(1, rows)))
    similar = patches @ genes.T
    better = [(similar[i] > similar[i, i]).sum().item() for i in range(50)]
    scores = recall(stamp, pair_dataset, [np.arange(0), rows], CONFIG)
    for k in (1, 5, 10):
        assert scores[f"recall@{k}"] == pytest.approx(
            np.mean([n < k for n in better]), abs=0.021
        )  # a tie of rounding
    assert 0 < scores["recall@10"] < 1


def test_stores_without_a_usable_spot_are_left_out(stamp, token_dataset, pair_dataset):
    rows = [np.arange(0), np.arange(30)]
    assert np.isfinite(masked_loss(stamp.gene_encoder, token_dataset, rows, CONFIG)["masked"])
    assert recall(stamp, pair_dataset, rows, CONFIG)["chance@5"] == pytest.approx(5 / 30)


@pytest.mark.parametrize(
    ("recalls", "n_spots", "is_chance"),
    [
        # A recall of 0.067 on 178 spots has a standard error of 0.0187.
        ([0.039, 0.067, 0.05, 0.05, 0.067], 178, True),
        ([0.039, 0.067, 0.05, 0.05, 0.049], 178, True),
        ([0.039, 0.067, 0.05, 0.05, 0.048], 178, False),
        ([0.039, 0.067, 0.05, 0.05, 0.049], 17_800, False),
        ([0.039, 0.05, 0.067, 0.05, 0.067], 178, False),  # not in the first half
        ([0.067, 0.05, 0.05, 0.05], 178, False),  # too few epochs
    ],
)
def test_an_early_epoch_that_is_kept_by_chance_is_noticed(recalls, n_spots, is_chance):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_epoch_is_chance(recalls, n_spots)
    texts = [str(item.message) for item in caught]
    assert len(texts) == is_chance
    for text in texts:
        assert "weights of epoch 2 of 5, but its recall@5 of 0.067 on 178 spots" in text
        assert "leave validation= out" in text
