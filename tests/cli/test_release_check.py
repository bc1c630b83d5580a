"""The comparison on a tiny model; the command's refusals."""

import dataclasses

import numpy as np
import pytest

from stp.cli import release_check
from stp.cli.main import main
from stp.models import Stamp


@pytest.fixture
def released(tiny_config, vocabulary):
    """A tiny model with the config and the rounding of the release."""
    gene = dataclasses.replace(tiny_config.gene, pooling="reference", tie_heads=False)
    image = dataclasses.replace(tiny_config.image, channel_order="bgr")
    config = dataclasses.replace(tiny_config, gene=gene, image=image)
    return Stamp(config, dataclasses.replace(vocabulary, round_means=True)).eval()


def test_each_change_has_its_row(released, sdata):
    found = release_check.compare(released, sdata, n_spots=40)
    changes = [
        "ties in another order",
        "exact means",
        "mean over real tokens",
        "channels bgr",
        "channels rgb",
    ]
    assert list(found.index) == changes
    assert (found.loc[changes[:2], "other tokens"] > 0).all() and found.loc[
        changes[2], "other tokens"
    ] == 0
    assert found.loc["channels bgr", "cosine"] == pytest.approx(1)
    moved = found.loc[[*changes[:3], "channels rgb"]]
    assert (moved["cosine"] < 1 - 1e-6).all() and (moved["lowest"] <= moved["cosine"]).all()
    assert moved["neighbors kept"].between(0, 1).all()
    assert found.loc["channels rgb", "chance"] == 5 / 40
    assert (
        released.config.image.channel_order == released.image_encoder.config.channel_order == "bgr"
    )


def test_without_an_image_channels_are_left_out(released, adata):
    found = release_check.compare(released, adata, n_spots=10)
    assert len(found) == 3 and np.isfinite(found.to_numpy()).all()


def test_a_coarse_image_is_refused_before_genes_are_embedded(released, sdata, monkeypatch):
    coarse = dataclasses.replace(released.image_encoder.config, um_per_px=0.5)
    monkeypatch.setattr(released.image_encoder, "config", coarse)
    monkeypatch.setattr(release_check, "_by_genes", lambda *of: pytest.fail("genes were embedded"))
    with pytest.raises(ValueError, match="allow_upsampling=True"):
        release_check.compare(released, sdata, n_spots=10)
    monkeypatch.undo()
    monkeypatch.setattr(released.image_encoder, "config", coarse)
    found = release_check.compare(released, sdata, n_spots=10, allow_upsampling=True)
    assert len(found) == 5


def test_tokens_of_another_tie_order_are_those_of_the_same_ranks(released, adata):
    tokens = release_check._tokens(adata, released.vocabulary, released)
    other = release_check._other_ties(adata, released)
    assert [set(row) for row in tokens] == [
        set(row) for row in other
    ]  # no spot is cut: all its genes are there
    assert (tokens != other).any()


def test_a_missing_file_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["reference-check", str(tmp_path / "w.bin"), str(tmp_path), str(tmp_path / "x.h5ad")])
    assert "x.h5ad" in capsys.readouterr().err
