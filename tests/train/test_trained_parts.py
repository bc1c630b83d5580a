"""What of a Stamp is trained, and what is saved of it."""

import dataclasses

import pytest
import torch

from stp.models import GeneEncoder, ImageEncoder, Stamp
from stp.models.lora import add_adapters, merge_adapters
from stp.train import AlignConfig, align
from stp.train.tasks import Alignment

ALIGN = AlignConfig(
    epochs=1, batch_size=20, accumulate=1, learning_rate=2e-3, min_genes=5, projection_width=32
)
PARTS = (
    "gene_encoder",
    "image_encoder.backbone",
    "image_encoder.prompt",
    "gene_projection",
    "region_projection",
)
CHANGED = {
    "all": PARTS,
    "images": PARTS[1:],
    "lora": PARTS[1:],
    "projections": PARTS[3:],
}


@pytest.fixture
def genes(tiny_config, vocabulary):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GeneEncoder(tiny_config.gene, vocabulary)


@pytest.fixture
def run(stores, genes, tiny_config, tmp_path):
    def train(trained, name="run", **how):
        config = dataclasses.replace(ALIGN, trained=trained, lora_rank=2, **how)
        settings = {"gene_encoder": genes, "image_encoder": tiny_config.image, "config": config}
        return align(stores[:2], tmp_path / name, validation=stores[2:], **settings)

    return train


@pytest.mark.parametrize("trained", CHANGED)
def test_only_what_is_trained_changes(trained, run):
    start, end = (
        run(trained, "start", learning_rate=1e-30, min_learning_rate=0, weight_decay=0),
        run(trained),
    )
    before, after = start.state_dict(), end.state_dict()
    assert not [name for name in after if "lora" in name]  # what is saved is plain
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {part for part in PARTS if any(name.startswith(part) for name in changed)} == set(
        CHANGED[trained]
    )


@torch.no_grad()
def test_features_of_frozen_genes_are_those_of_their_tokens(stamp):
    tokens = torch.randint(30, 62, (3, 32))
    features, aligned = stamp.encode_genes(tokens)
    again = stamp.encode_genes(features)
    assert torch.equal(again[0], features)
    assert torch.equal(again[1], aligned)


def test_adapters_are_a_few_percent_and_start_at_nothing(tiny_config):
    wide = dataclasses.replace(
        tiny_config.image, backbone_args={"embed_dim": 192, "depth": 4, "num_heads": 3}
    )
    encoder = ImageEncoder(wide).eval()
    n_all = sum(p.numel() for p in encoder.backbone.parameters())
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = encoder(images)
        add_adapters(encoder, 16)
        assert torch.equal(encoder(images), before)
    n_trained = sum(p.numel() for p in encoder.backbone.parameters() if p.requires_grad)
    assert 0.01 < n_trained / n_all < 0.06


@torch.no_grad()
def test_merged_weights_equal_the_adapters(stamp):
    add_adapters(stamp.image_encoder, 2)
    for name, parameter in stamp.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    plain = merge_adapters(stamp)
    torch.testing.assert_close(
        plain.encode_images(images), stamp.encode_images(images), rtol=1e-4, atol=1e-4
    )
    assert plain.state_dict().keys() == Stamp(stamp.config, stamp.vocabulary).state_dict().keys()
    assert any("lora" in name for name in stamp.state_dict())  # the copy alone is plain


def test_what_is_frozen_asks_for_no_gradient(stamp):
    stamp.requires_grad_(True)
    stamp.gene_encoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    patches, regions = torch.randint(
        0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=generator
    )
    batch = {
        "patches": patches,
        "regions": regions,
        "cells": torch.arange(4),
        "stains": torch.ones(4, 3),
    }
    batch["rotations"] = torch.zeros(4, dtype=int)
    batch["genes"] = stamp.gene_encoder(torch.randint(30, 62, (4, 32)))
    Alignment(stamp)(batch)["loss"].backward()
    assert all(p.grad is None for p in stamp.gene_encoder.parameters())
    assert stamp.gene_projection.weight.grad.any()


def test_an_unknown_part_is_refused():
    with pytest.raises(
        ValueError, match="trained must be 'all', 'images', 'lora' or 'projections', not 'vision'"
    ):
        AlignConfig(trained="vision")
