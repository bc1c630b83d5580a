import anndata
import numpy as np
import pytest
import torch

from stp import tl, train
from stp.metrics import recall_at_k
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp, StampConfig
from stp.train.adaptation import adapted_from

CONFIG = train.AdaptConfig(epochs=30, batch_size=32, device="cpu", log_every=1)


@pytest.fixture
def spots(record_model, stamp):
    """Make features of spots whose genes and images are two views of the same three numbers."""

    def make(n, seed):
        rng = np.random.default_rng(seed)
        table, hidden = anndata.AnnData(obs={"n": np.arange(n)}), rng.normal(size=(n, 3))
        views = np.random.default_rng(9).normal(size=(2, 3, 32))
        for key, view in zip(("X_stp_images", "X_stp_genes"), views, strict=True):
            table.obsm[key] = (hidden @ view + 0.1 * rng.normal(size=(n, 32))).astype(np.float32)
        record_model(table, "X_stp_images", "X_stp_genes", digest=stamp.digest)
        return table

    return make


@pytest.mark.parametrize(("reduction", "expected"), [(4, 1_442_816), (2, 2_098_176)])
def test_parameters_at_paper_size(reduction, expected, vocabulary):
    """Of one block each: only widths count."""
    vit = {"patch_size": 16, "embed_dim": 1024, "depth": 1, "num_heads": 16}
    image = ImageEncoderConfig("vit_tiny_patch16_224", vit, image_size=32)
    model = Stamp(StampConfig(GeneEncoderConfig(depth=1), image), vocabulary)
    adapted = adapted_from(model, train.AdaptConfig(reduction=reduction))
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == expected


def test_adapters_begin_as_the_model(stamp):
    adapted = adapted_from(stamp, CONFIG)
    patches = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        for before, after in zip(
            stamp.encode_images(patches), adapted.encode_images(patches), strict=True
        ):
            torch.testing.assert_close(after, before)


def test_it_learns_and_leaves_the_encoders(spots, stamp, tmp_path):
    other = spots(60, 3)
    tables = [spots(80, 1), spots(70, 2)]
    tables[0].obsm["X_stp_genes"][5] = np.nan  # a spot without tokens
    adapted = train.adapt(tables, tmp_path, model=stamp, config=CONFIG, validation=[spots(50, 4)])
    for name, tensor in stamp.state_dict().items():
        same = torch.equal(tensor, adapted.state_dict()[name])
        assert same != name.startswith(("gene_projection", "patch_projection")), name

    def recall(model):
        with torch.no_grad():
            images, genes = (
                torch.from_numpy(other.obsm[key]) for key in ("X_stp_images", "X_stp_genes")
            )
            return recall_at_k(
                model.encode_images(images)[1].numpy(), model.encode_genes(genes)[1].numpy()
            )[5]

    assert recall(stamp) < 0.2 and recall(adapted) > 0.6
    assert adapted.config.adapter_reduction == 4
    assert adapted.digest == Stamp.from_pretrained(tmp_path).digest != stamp.digest


def test_training_stops_when_validation_no_longer_rises(spots, stamp, tmp_path):
    config = train.AdaptConfig(epochs=40, batch_size=32, patience=2, learning_rate=1e-9)
    train.adapt(spots(80, 1), tmp_path, model=stamp, config=config, validation=spots(50, 4))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert (
        sum('"validation"' in line for line in lines) == 3
    )  # the first is the best, and two are not better


def test_an_adapted_model_embeds_as_any(embedded, stamp, tmp_path):
    config = train.AdaptConfig(epochs=1, device="cpu")
    with pytest.warns(UserWarning, match="only 100 spots"):
        adapted = train.adapt(embedded, tmp_path, model=stamp, config=config)
    table = embedded.tables["table"]
    tl.embed_images(embedded, adapted, key_added="adapted")
    np.testing.assert_allclose(
        table.obsm["adapted"], table.obsm["X_stp_images"], rtol=1e-4, atol=1e-5
    )
    assert not np.allclose(
        table.obsm["adapted_aligned"], table.obsm["X_stp_images_aligned"], atol=1e-4
    )


def test_bad_input(spots, stamp, tmp_path, record_model):
    table = spots(30, 1)
    with pytest.raises(ValueError, match="adapters already"):
        train.adapt(table, tmp_path, model=adapted_from(stamp, CONFIG))
    record_model(table, "X_stp_genes", name="another", digest="1" * 64)
    with pytest.raises(
        ValueError, match=r"obsm\['X_stp_genes'\] of reference 0 was made by another \(1111"
    ):
        train.adapt(table, tmp_path, model=stamp)
    del table.obsm["X_stp_images"]
    with pytest.raises(
        KeyError,
        match=r"obsm\['X_stp_images'\] of reference 0 is missing; run stp\.tl\.embed_images",
    ):
        train.adapt(table, tmp_path, model=stamp)
    with pytest.raises(ValueError, match="no reference"):
        train.adapt([], tmp_path, model=stamp)
    assert not list(tmp_path.iterdir())
