import pytest
import torch
import torch.nn.functional as F

from stp import Vocabulary
from stp.data.augmentation import jitter_stain, rotate, rotate_cells
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.train.losses import contrast, grid_pool, localization_logits, symmetric_contrast
from stp.train.tasks import Alignment, MaskedGenes, NeighborhoodGenes

N_GENES, FIRST, MASK, PAD = 40, 30, 0, 1
SIZE = 3  # spots per group
LENGTHS = (6, 8, 2, 8, 3, 7)  # two groups


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GeneEncoderConfig(context_length=10, width=16, depth=1, n_heads=2, ffn_width=16)
        model = GeneEncoder(config, Vocabulary.from_genes([f"g{i}" for i in range(N_GENES)]))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    targets = torch.full((len(LENGTHS), max(LENGTHS)), PAD)
    chosen = torch.zeros_like(targets, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        targets[row, :length] = torch.randperm(N_GENES, generator=generator)[:length] + FIRST
        chosen[row, torch.randperm(length, generator=generator)[: 1 + row % 3]] = True
    return {"inputs": torch.where(chosen, MASK, targets), "targets": targets, "chosen": chosen}


def surprise(logits, target):
    return -logits.log_softmax(-1)[target]


def test_masked_loss_is_the_mean_over_chosen_tokens(encoder, batch):
    hidden = encoder.hidden(batch["inputs"])
    losses = [
        surprise(encoder.predict(hidden[row, position][None])[0], batch["targets"][row, position])
        for row, position in batch["chosen"].nonzero().tolist()
    ]
    task = MaskedGenes(encoder)
    output = task(batch)
    torch.testing.assert_close(output["masked"], torch.stack(losses).mean())
    assert output["loss"] is output["masked"]
    assert task.counts(batch) == {"masked": len(losses)}


@pytest.mark.parametrize("targets", ["masked", "all"])
@pytest.mark.parametrize("context", ["pooled", "positionwise"])
def test_neighborhood_loss_equals_a_slow_loop(encoder, batch, context, targets):
    hidden, losses = encoder.hidden(batch["inputs"], padding=True), []
    for center in range(0, len(LENGTHS), SIZE):
        neighbors = range(center + 1, center + SIZE)
        pooled = torch.stack([hidden[row, : LENGTHS[row]].mean(0) for row in neighbors]).mean(0)
        for position in range(LENGTHS[center]):
            if targets == "all" or batch["chosen"][center, position]:
                there = torch.stack([hidden[row, position] for row in neighbors]).mean(0)
                logits = encoder.predict_from_context(
                    (pooled if context == "pooled" else there)[None]
                )[0]
                losses.append(surprise(logits, batch["targets"][center, position]))
    task = NeighborhoodGenes(encoder, context=context, targets=targets, group_size=SIZE)
    output = task(batch)
    torch.testing.assert_close(output["neighborhood"], torch.stack(losses).mean())
    torch.testing.assert_close(output["masked"], MaskedGenes(encoder)(batch)["masked"])
    torch.testing.assert_close(output["loss"], output["masked"] + output["neighborhood"])
    assert task.counts(batch) == {"masked": int(batch["chosen"].sum()), "neighborhood": len(losses)}


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    patches, regions = torch.randint(
        0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=generator
    )
    tokens = torch.stack([torch.randperm(32, generator=generator) + FIRST for _ in range(4)])
    tokens[1, 20:] = 0
    cells = torch.tensor([0, 3, 8, 4])
    augmentation = {
        "cells": cells,
        "rotations": torch.zeros(4, dtype=int),
        "stains": torch.ones(4, 3),
    }
    return {"genes": tokens, "patches": patches, "regions": regions, **augmentation}


@torch.no_grad()
def test_alignment_has_four_losses(stamp, pairs):
    output = Alignment(stamp)(pairs)
    _, genes = stamp.encode_genes(pairs["genes"])
    _, patches = stamp.encode_images(pairs["patches"])
    region = stamp.image_encoder.encode(pairs["regions"], patches=pairs["patches"])
    regions = F.normalize(stamp.region_projection(region.features), dim=-1)
    project = stamp.localization_projection
    logits = localization_logits(
        project(grid_pool(region.tokens)), project(region.patch_token), stamp.scale
    )
    expected = {
        "patch_gene": symmetric_contrast(patches, genes, stamp.scale),
        "region_gene": symmetric_contrast(regions, genes, stamp.scale),
        "patch_region": contrast(patches, regions, stamp.scale),
        "localization": F.cross_entropy(logits, pairs["cells"]),
    }
    assert set(output) == {*expected, "localized", "loss"}
    for name, loss in expected.items():
        torch.testing.assert_close(output[name], loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output["loss"], sum(output[name] for name in expected))
    assert Alignment(stamp).counts(pairs) == dict.fromkeys(expected, 4)


def gradients(task, pairs):
    task.model.zero_grad()
    task(pairs)["loss"].backward()
    return {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 9])
def test_micro_batches_have_the_gradients_of_the_whole(stamp, pairs, micro_batch):
    stamp = stamp.train().requires_grad_(True)
    whole, parts = (
        gradients(Alignment(stamp), pairs),
        gradients(Alignment(stamp, micro_batch=micro_batch), pairs),
    )
    assert whole.keys() == parts.keys()
    assert len(whole) > 40
    for name, gradient in whole.items():
        assert torch.norm(parts[name] - gradient) <= 1e-5 * torch.norm(gradient) + 1e-9, name
    small = Alignment(stamp)({name: values[:2] for name, values in pairs.items()})
    assert (
        abs(small["loss"] - Alignment(stamp, micro_batch=2)(pairs)["loss"]) > 0.01
    )  # negatives are of the batch


def test_micro_batches_keep_less_for_the_backward_pass(stamp, pairs):
    def kept(micro_batch):
        sizes = []
        task = Alignment(stamp.train().requires_grad_(True), micro_batch=micro_batch)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            task(pairs)
        return sum(sizes)

    assert kept(1) < kept(None) / 2  # of four parts the last is not encoded again


@torch.no_grad()
@pytest.mark.parametrize("right", [0, 1, 4])
def test_localized_is_the_share_of_patches_found(stamp, pairs, right):
    region = stamp.image_encoder.encode(pairs["regions"], patches=pairs["patches"])
    project = stamp.localization_projection
    nearest_cells = localization_logits(
        project(grid_pool(region.tokens)), project(region.patch_token), stamp.scale
    ).argmax(1)
    cells = torch.where(torch.arange(4) < right, nearest_cells, (nearest_cells + 1) % 9)
    assert Alignment(stamp)(pairs | {"cells": cells})["localized"].item() == right / 4


def test_every_trained_part_of_stamp_has_a_gradient(stamp, pairs):
    Alignment(stamp.train())(pairs)["loss"].backward()
    without = {
        name.split(".")[1]
        for name, p in stamp.named_parameters()
        if p.grad is None or not p.grad.any()
    }
    assert without <= {"classifier_head", "spatial_classifier_head"}


def test_stain_multiplies_optical_density():
    images = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).view(1, 1, 4, 1).expand(2, 1, 4, 3)
    density = -torch.log(images / 255)
    factors = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 3.0]])
    result = jitter_stain(images, factors)
    torch.testing.assert_close(result[0], images[0].float())
    torch.testing.assert_close(-torch.log(result[1] / 255), density[1] * factors[1])


def test_stain_reaches_patches_regions_and_references(stamp, pairs):
    darker = pairs | {"stains": torch.full((4, 3), 2.0)}
    plain, dark = Alignment(stamp)(pairs), Alignment(stamp)(darker)
    by_hand = {
        name: (255 * (pairs[name].float() / 255) ** 2) if name in ("patches", "regions") else value
        for name, value in pairs.items()
    }
    torch.testing.assert_close(dark, Alignment(stamp)(by_hand))
    assert abs(dark["loss"] - plain["loss"]) > 1e-4


@pytest.mark.parametrize(
    "losses", [("patch_target",), ("patch_region",), ("localization",), ("region_target",)]
)
def test_losses_that_are_left_out_change_no_other(losses, stamp, pairs):
    whole, part = Alignment(stamp)(pairs), Alignment(stamp, losses=losses)(pairs)
    (name,) = Alignment(stamp, losses=losses).counts(pairs)
    assert set(part) - {"localized"} == {name, "loss"}
    torch.testing.assert_close(part["loss"], whole[name])


@torch.no_grad()
def test_images_are_turned_with_their_cells(stamp, pairs):
    """A batch has the same losses if its images and cells are rotated by hand before."""
    turns = torch.arange(4) * 2 + 1
    by_hand = pairs | {name: rotate(pairs[name], turns) for name in ("patches", "regions")}
    by_hand["cells"] = rotate_cells(pairs["cells"], turns)
    assert by_hand["cells"].tolist() != pairs["cells"].tolist()
    torch.testing.assert_close(
        Alignment(stamp)(pairs | {"rotations": turns}), Alignment(stamp)(by_hand)
    )
