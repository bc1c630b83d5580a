import math

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture
def tokens():
    return F.pad(torch.stack([torch.arange(30, 50).roll(shift) for shift in range(3)]), (0, 12))


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@torch.no_grad()
def test_genes_give_features_and_aligned_unit_vectors(stamp, tokens):
    features, aligned = stamp.encode_genes(tokens)
    assert features.shape == aligned.shape == (3, 32)
    assert torch.equal(features, stamp.gene_encoder(tokens))
    torch.testing.assert_close(aligned, F.normalize(stamp.gene_projection(features), dim=-1))
    torch.testing.assert_close(aligned.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_images_give_features_and_aligned_unit_vectors(stamp, images):
    features, aligned = stamp.encode_images(images)
    assert features.shape == aligned.shape == (3, 32)
    assert torch.equal(features, stamp.image_encoder(images))
    torch.testing.assert_close(aligned, F.normalize(stamp.patch_projection(features), dim=-1))
    torch.testing.assert_close(aligned.norm(dim=1), torch.ones(3))


def test_four_projections_are_separate(stamp):
    names = ("gene_projection", "patch_projection", "region_projection", "localization_projection")
    assert len({getattr(stamp, name).weight.data_ptr() for name in names}) == 4


@pytest.mark.parametrize(
    ("logit", "scale"),
    [(None, 1 / 0.07), (math.log(50), 50), (math.log(100), 100), (9.0, 100)],
    ids=str,
)
def test_scale_starts_at_the_papers_and_is_clamped(stamp, logit, scale):
    if logit is not None:
        stamp.logit_scale.data.fill_(logit)
    assert stamp.scale.item() == pytest.approx(scale, rel=1e-5)


def test_vocabulary_is_that_of_the_gene_encoder(stamp, vocabulary):
    assert stamp.vocabulary is vocabulary is stamp.gene_encoder.vocabulary
