"""Files that are refused as released weights; tests of their values are in test_golden.py."""

import json

import pytest
import torch

import stp.models.published.release as module
from stp.models import load_release_files
from stp.models.published.release import released_name


@pytest.fixture
def release(golden, tmp_path):
    """Save and load a checkpoint with the names and shapes of the release.

    Its zeros take no memory or disk.
    """
    shapes = json.loads((golden / "state_dict_shapes.json").read_text())
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assets = golden.parent / "assets"

    def load(change=lambda state: None, wrap=lambda state: state):
        change(state)
        torch.save(wrap(state), tmp_path / "pytorch_model.bin")
        return load_release_files(tmp_path / "pytorch_model.bin", assets)

    return load


class Fits(Exception):
    """Raised when the weights fit."""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": x for name, x in state.items()},
        lambda state: {"state_dict": state, "epoch": 3, "global_step": 5},
    ],
    ids=["plain", "module.", "Lightning"],
)
def test_every_wrapping_of_the_release_fits(release, wrap, monkeypatch):
    build = module.Stamp

    def stop(config, vocabulary):
        if torch.empty(0).is_meta:
            return build(config, vocabulary)
        raise Fits

    monkeypatch.setattr(module, "Stamp", stop)
    with pytest.raises(Fits):
        release(wrap=wrap)


def test_other_weights_are_refused_by_name(release):
    def change(state):
        del state["spot_projection.bias"]
        state["tuned"] = torch.zeros(3)
        state["patch_projection.bias"] = torch.zeros(513)

    message = (
        r"pytorch_model\.bin does not fit the released architecture: "
        r"missing: spot_projection\.bias; unknown: tuned; "
        r"of another shape: patch_projection\.bias is \[513\], not \[512\]"
    )
    with pytest.raises(ValueError, match=message):
        release(change)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no weights at .*; give the pytorch_model.bin of the release"
    ):
        load_release_files(tmp_path / "pytorch_model.bin", tmp_path)
    (tmp_path / "w.bin").touch()
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.h5ad, Visium_mean\.npy, gene_name_id_dict\.pkl"
    ):
        load_release_files(tmp_path / "w.bin", tmp_path)


def test_tensors_have_other_names_in_the_release():
    ours = [
        "gene_encoder.encoder.layers.0.norm1.bias",
        "localization_projection.bias",
        "logit_scale",
    ]
    theirs = [
        "spot_backbone.encoder.layers.0.norm1.bias",
        "positioning_projection.bias",
        "logit_scale",
    ]
    assert [released_name(name) for name in ours] == theirs
