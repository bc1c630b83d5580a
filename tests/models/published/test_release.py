"""Downloads of the release, and files that are refused; test_golden.py has its values."""

import hashlib
import json
import shutil
import time

import pytest
import torch

import stp.models.published.release as module
from stp.models import load_release, load_release_files
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


ASSETS = ("model.h5ad", "Visium_mean.npy", "gene_name_id_dict.pkl")
RAW = "Hanminghao/STAMP/78c4fd2/src"
NEVER_BUILT = b"no weights"


@pytest.fixture
def online(golden, hub, monkeypatch):
    """Serve the assets as GitHub does, and on the hub a file in the place of the checkpoint."""
    monkeypatch.setenv("STP_GITHUB_RAW", f"{hub.url}/raw")
    for name in ASSETS:
        hub.raw[f"{RAW}/{name}"] = golden.parent / "assets" / name
    hub.commit("minghaofdu/STAMP", {"pytorch_model.bin": NEVER_BUILT})
    return hub


def test_without_consent_nothing_is_downloaded_and_all_is_listed(online, tmp_path):
    with pytest.raises(PermissionError) as caught:
        load_release(tmp_path / "release")
    message = str(caught.value)
    for part in (
        str(tmp_path / "release"),
        f"pytorch_model.bin (about 1.4 GB, {online.url}/minghaofdu/STAMP/resolve/main/",
        f"model.h5ad (1.0 MB, {online.url}/raw/{RAW}/model.h5ad)",
        "Visium_mean.npy (0.2 MB",
        "gene_name_id_dict.pkl (0.5 MB",
        "state no license",
        "CC-BY-NC-ND-4.0",
        "accept_terms=True",
    ):
        assert part in message
    assert not online.requests and not (tmp_path / "release").exists()


def test_without_a_network_files_addresses_and_folder_are_named(online, tmp_path, monkeypatch):
    monkeypatch.setenv("STP_GITHUB_RAW", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        load_release(tmp_path, accept_terms=True)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert f"pytorch_model.bin ({online.url}/minghaofdu/STAMP/resolve/main/" in message
    assert f"model.h5ad (http://127.0.0.1:9/{RAW}/model.h5ad)" in message
    assert f"put them into {tmp_path / 'files'}" in message


def test_files_that_a_user_put_there_are_not_downloaded(online, golden, tmp_path):
    (tmp_path / "files").mkdir()
    for name in ASSETS:
        shutil.copy(golden.parent / "assets" / name, tmp_path / "files" / name)
    online.status = 503
    with pytest.raises(FileNotFoundError, match=r"get pytorch_model.bin \(\S+\) on another"):
        load_release(tmp_path, accept_terms=True)
    (tmp_path / "files" / "pytorch_model.bin").write_bytes(NEVER_BUILT)
    n_requests = len(online.requests)
    with pytest.raises(ValueError, match=r"files/pytorch_model\.bin is not a file of torch\.save"):
        load_release(tmp_path, accept_terms=True)
    assert len(online.requests) == n_requests
    assert not (tmp_path / "stamp").exists()


def test_each_file_is_asked_for_once_and_its_digest_recorded(online, tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="is not a file of torch.save"):
            load_release(tmp_path, accept_terms=True)
    record = json.loads((tmp_path / "sources.json").read_text())
    assert record["sha256"] == hashlib.sha256(NEVER_BUILT).hexdigest()
    assert record["commit"] == online.repositories["minghaofdu/STAMP"].names["main"]
    downloads = [request for request in online.requests if request.startswith("GET")]
    assert len(downloads) == len(set(downloads)) == 4


def test_another_checkpoint_than_the_first_is_refused(online, tmp_path):
    with pytest.raises(ValueError, match="is not a file of torch.save"):
        load_release(tmp_path, accept_terms=True)
    (tmp_path / "files" / "pytorch_model.bin").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"another file than that of the first download: .* not"):
        load_release(tmp_path, accept_terms=True)


def test_a_newer_checkpoint_on_the_hub_is_not_taken(online, tmp_path):
    with pytest.raises(ValueError, match="is not a file of torch.save"):
        load_release(tmp_path, accept_terms=True)
    first = online.repositories["minghaofdu/STAMP"].names["main"]
    online.commit("minghaofdu/STAMP", {"pytorch_model.bin": b"newer"})
    shutil.rmtree(tmp_path / "cache")  # of the hub's client
    with pytest.raises(ValueError, match=f"{first}.* is not a file of torch.save"):
        load_release(tmp_path, accept_terms=True)


@pytest.mark.parametrize("fault", ["other content", "too short", "too long", "cut", "missing"])
@pytest.mark.parametrize("name", ASSETS)
def test_a_damaged_asset_is_refused_and_nothing_is_left(online, name, fault, tmp_path):
    path = f"{RAW}/{name}"
    content = online.raw[path].read_bytes()
    size = len(content)
    if fault == "cut":
        online.cut[f"/raw/{path}"] = size // 2
    elif fault == "missing":
        del online.raw[path]
    else:
        changes = {"other content": bytes(size), "too short": content[:-1]}
        online.raw[path] = changes.get(fault, content + b"x")
    kind = ValueError if fault == "other content" else FileNotFoundError
    with pytest.raises(kind, match=f"{name}.* put (it|them) into .*files"):
        load_release(tmp_path, accept_terms=True)
    assert not any(file.name.endswith(name) for file in (tmp_path / "files").iterdir())


def test_a_changed_asset_is_refused(online, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "Visium_mean.npy").write_bytes(b"other means")
    with pytest.raises(ValueError, match=r"Visium_mean\.npy is not the file of commit 78c4fd2"):
        load_release(tmp_path, accept_terms=True)


def test_a_broken_download_of_the_checkpoint_leaves_no_model(online, tmp_path):
    commit = online.commit("minghaofdu/STAMP", {"pytorch_model.bin": bytes(2**20)})
    for revision in ("main", commit):
        online.cut[f"/minghaofdu/STAMP/resolve/{revision}/pytorch_model.bin"] = 1000
    with pytest.raises(FileNotFoundError, match=r"get pytorch_model.bin"):
        load_release(tmp_path, accept_terms=True)
    assert not (tmp_path / "sources.json").exists() and not (tmp_path / "stamp").exists()


def test_gated_weights_are_explained(online, tmp_path):
    online.repositories["minghaofdu/STAMP"].is_gated = True
    with pytest.raises(PermissionError, match="minghaofdu/STAMP are gated: .* put it into .*files"):
        load_release(tmp_path, accept_terms=True)


@pytest.mark.slow
def test_a_conversion_that_a_full_disk_stops_leaves_no_model(online, golden, tmp_path):
    resource = pytest.importorskip("resource")  # Windows has none
    shapes = json.loads((golden / "state_dict_shapes.json").read_text())
    zeros = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    torch.save(zeros, tmp_path / "zeros")  # it takes no disk
    online.commit("minghaofdu/STAMP", {"pytorch_model.bin": tmp_path / "zeros"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, limits[1]))
    try:
        with pytest.raises(Exception, match="File too large"):
            load_release(tmp_path / "release", accept_terms=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in (tmp_path / "release").iterdir()} == {"files", "sources.json"}
