"""The comparison of `stp release-check` on a tiny model, and its errors."""

import dataclasses

import numpy as np
import pytest

from stp.cli.main import main
from stp.models import Stamp
from stp.workflows import release_check


@pytest.fixture
def release(tiny_config, vocabulary):
    """Make a tiny model with the config and the rounding of the release."""
    gene = dataclasses.replace(tiny_config.gene, pooling="reference", tie_heads=False)
    image = dataclasses.replace(tiny_config.image, channel_order="bgr")
    config = dataclasses.replace(tiny_config, gene=gene, image=image)
    return Stamp(config, dataclasses.replace(vocabulary, round_means=True)).eval()


def test_each_change_has_its_row(release, sdata):
    table = release_check.compare(release, sdata, n_spots=40)
    gene_changes = ["ties in another order", "exact means", "mean over real tokens"]
    assert list(table.index) == [*gene_changes, "channels bgr", "channels rgb"]
    assert (table.loc[gene_changes[:2], "other tokens"] > 0).all()
    assert table.loc["mean over real tokens", "other tokens"] == 0
    assert table.loc["channels bgr", "cosine"] == pytest.approx(1)
    changed = table.loc[[*gene_changes, "channels rgb"]]
    assert (changed["cosine"] < 1 - 1e-6).all()
    assert (changed["lowest"] <= changed["cosine"]).all()
    assert changed["neighbors kept"].between(0, 1).all()
    assert table.loc["channels rgb", "chance"] == 5 / 40
    assert release.config.image.channel_order == "bgr"
    assert release.image_encoder.config.channel_order == "bgr"


def test_without_an_image_channels_are_left_out(release, adata):
    table = release_check.compare(release, adata, n_spots=10)
    assert len(table) == 3
    assert np.isfinite(table.to_numpy()).all()


def test_a_coarse_image_is_refused_before_genes_are_embedded(release, sdata, monkeypatch):
    finer = dataclasses.replace(release.image_encoder.config, um_per_px=0.5)
    monkeypatch.setattr(release.image_encoder, "config", finer)
    with monkeypatch.context() as patch:
        patch.setattr(release, "encode_genes", lambda tokens: pytest.fail("genes were embedded"))
        with pytest.raises(ValueError, match="allow_upsampling=True"):
            release_check.compare(release, sdata, n_spots=10)
    table = release_check.compare(release, sdata, n_spots=10, allow_upsampling=True)
    assert len(table) == 5


def test_tokens_of_another_tie_order_are_those_of_the_same_ranks(release, adata):
    tokens = release_check._tokenize(adata, release.vocabulary, release)
    other_tokens = release_check._tokenize_with_other_ties(adata, release)
    # No spot has more genes than tokens, so each keeps all of its genes.
    assert [set(row) for row in tokens] == [set(row) for row in other_tokens]
    assert (tokens != other_tokens).any()


def test_a_missing_file_is_one_line(tmp_path, capsys):
    section = tmp_path / "x.h5ad"
    (tmp_path / "w.bin").touch()
    with pytest.raises(SystemExit):
        main(["release-check", str(tmp_path / "w.bin"), str(tmp_path), str(section)])
    assert "x.h5ad" in capsys.readouterr().err
