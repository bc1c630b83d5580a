"""Models from the hub and to it, over HTTP with a hub on this machine."""

import dataclasses
import socket
import time

import pytest
from huggingface_hub import constants

from stp import tl
from stp.models import ImageEncoder, ModelCard, Stamp

NO_COMMIT = "f" * 40
OPEN = ModelCard(license="CC-BY-4.0")


@pytest.fixture
def published(stamp, hub, tmp_path) -> str:
    """Put the tiny Stamp on the hub, and return its commit."""
    stamp.save_pretrained(tmp_path / "saved")
    return hub.commit_folder("someone/stamp", tmp_path / "saved")


def closed_port() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_commit_is_loaded_without_a_warning_and_again_without_a_request(
    stamp, hub, published, recwarn
):
    loaded = Stamp.from_pretrained("someone/stamp", revision=published)
    assert loaded.digest == stamp.digest
    assert not recwarn.list
    n_requests = len(hub.requests)
    assert Stamp.from_pretrained("someone/stamp", revision=published).digest == stamp.digest
    assert len(hub.requests) == n_requests > 0


@pytest.mark.parametrize("revision", [None, "main", "v1", "release/2"])
def test_a_branch_or_tag_is_resolved_recorded_and_warned_about(stamp, hub, published, revision):
    names = hub.repositories["someone/stamp"].names
    names |= {"v1": published, "release/2": published}
    message = rf"someone/stamp is commit {published} now, .* pass revision='{published}'"
    with pytest.warns(UserWarning, match=message):
        loaded = Stamp.from_pretrained("someone/stamp", revision=revision)
    assert loaded.digest == stamp.digest
    assert loaded.name == loaded.card.source == f"someone/stamp@{published}"


def test_the_commit_is_stored_with_embeddings_and_on_the_card(hub, published, adata, tmp_path):
    model = Stamp.from_pretrained("someone/stamp", revision=published)
    tl.tokenize(adata, model, context_length=32)
    tl.embed_genes(adata, model)
    assert adata.uns["X_stp_genes"]["model"]["name"] == f"someone/stamp@{published}"
    model.save_pretrained(tmp_path / "copy")
    page = (tmp_path / "copy" / "README.md").read_text()
    assert f"The weights come from someone/stamp@{published}." in page


def test_a_branch_that_moved_gives_all_files_of_the_new_commit(stamp, hub, published, tmp_path):
    with pytest.warns(UserWarning, match=published):
        Stamp.from_pretrained("someone/stamp")
    stamp.logit_scale.data.fill_(1.0)
    stamp.save_pretrained(tmp_path / "saved")
    newer = hub.commit_folder("someone/stamp", tmp_path / "saved")
    with pytest.warns(UserWarning, match=newer):
        assert Stamp.from_pretrained("someone/stamp").digest == stamp.digest
    old = Stamp.from_pretrained("someone/stamp", revision=published)
    assert old.digest != stamp.digest


def test_offline_a_branch_is_the_commit_of_the_cache(stamp, hub, published, monkeypatch):
    with pytest.warns(UserWarning, match=published):
        Stamp.from_pretrained("someone/stamp")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    n_requests = len(hub.requests)
    message = rf"someone/stamp is read from the cache, commit {published}: HF_HUB_OFFLINE is set"
    with pytest.warns(UserWarning, match=message), pytest.warns(UserWarning, match="move"):
        assert Stamp.from_pretrained("someone/stamp").digest == stamp.digest
    assert len(hub.requests) == n_requests


def test_a_commit_in_a_copied_cache_needs_no_network(stamp, hub, published, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "models--someone--copied" / "snapshots" / published
    stamp.save_pretrained(folder)
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    loaded = Stamp.from_pretrained("someone/copied", revision=published)
    assert (loaded.digest, loaded.name) == (stamp.digest, f"someone/copied@{published}")


@pytest.mark.parametrize(
    ("hub_id", "revision", "kind", "message"),
    [
        (
            "someone/stamp",
            NO_COMMIT,
            FileNotFoundError,
            "cannot get config.json of someone/stamp .* has no revision 'f",
        ),
        ("someone/stamp", "v9", FileNotFoundError, "someone/stamp has no revision 'v9'"),
        (
            "someone/else",
            None,
            FileNotFoundError,
            r"give the folder of a model, or download config.json, .*\(the hub has no someone/else",
        ),
        ("someone/stamp", "../../" + "a" * 34, ValueError, "is not a commit, branch or tag"),
        ("../../someone/stamp", "main", ValueError, "is not an id of the hub"),
        ("/etc", "main", ValueError, "is not an id of the hub"),
    ],
)
def test_what_the_hub_lacks_is_refused(hub, published, hub_id, revision, kind, message):
    with pytest.raises(kind, match=message):
        Stamp.from_pretrained(hub_id, revision=revision)


def test_a_missing_file_is_named(hub, published):
    del hub.repositories["someone/stamp"].commits[published]["vocabulary.parquet"]
    with pytest.raises(
        FileNotFoundError, match=r"cannot get vocabulary.parquet .* has no such file at revision"
    ):
        Stamp.from_pretrained("someone/stamp", revision=published)


def test_a_gated_repository_is_explained(hub, published):
    hub.repositories["someone/stamp"].is_gated = True
    with pytest.raises(
        PermissionError, match="someone/stamp are gated: accept the terms at .* `hf auth login`"
    ):
        Stamp.from_pretrained("someone/stamp", revision="main")


def test_a_private_repository_needs_a_token(stamp, hub, published, monkeypatch):
    hub.repositories["someone/stamp"].is_private = True
    with pytest.raises(FileNotFoundError, match="or shows it only after `hf auth login`"):
        Stamp.from_pretrained("someone/stamp", revision=published)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert Stamp.from_pretrained("someone/stamp", revision=published).digest == stamp.digest


@pytest.mark.parametrize("fault", ["closed port", "silent", "503"])
def test_a_hub_out_of_reach_is_one_line_within_five_seconds(hub, published, fault, monkeypatch):
    silent = socket.create_server(("127.0.0.1", 0))
    if fault == "closed port":
        monkeypatch.setenv("HF_ENDPOINT", closed_port())
    elif fault == "silent":
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    else:
        hub.status = 503
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        Stamp.from_pretrained("someone/stamp")
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert "give the folder of a model, or download config.json" in message
    assert ("status 503" if fault == "503" else "cannot be reached") in message
    silent.close()


def test_a_typing_error_in_a_path_asks_no_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/stamp", "stamp", tmp_path / "a" / "b"):
        with pytest.raises(FileNotFoundError, match="has no config.json; give a folder written by"):
            Stamp.from_pretrained(path)
    assert not hub.requests


def test_a_pushed_model_loads_from_the_commit_that_was_returned(stamp, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    stamp.card = OPEN
    commit = stamp.push_to_hub("someone/new")
    repository = hub.repositories["someone/new"]
    assert repository.is_private and repository.names["main"] == commit
    files = repository.commits[commit]
    assert set(files) == {"README.md", "config.json", "model.safetensors", "vocabulary.parquet"}
    assert files["README.md"].startswith(b"---\nlibrary_name: stp-spatial\nlicense: cc-by-4.0\n")
    assert b"# someone/new\n" in files["README.md"]
    loaded = Stamp.from_pretrained("someone/new", revision=commit)
    assert loaded.digest == stamp.digest
    # A second push is another commit of the same repository.
    loaded.logit_scale.data.fill_(1.0)
    newer = loaded.push_to_hub("someone/new")
    assert newer != commit
    assert Stamp.from_pretrained("someone/new", revision=newer).digest == loaded.digest


def test_a_public_model_loads_without_a_token(stamp, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    stamp.image_encoder.card = OPEN
    commit = stamp.image_encoder.push_to_hub("someone/images", private=False)
    monkeypatch.delenv("HF_TOKEN")
    loaded = ImageEncoder.from_pretrained("someone/images", revision=commit)
    assert loaded.digest == stamp.image_encoder.digest
    stamp.image_encoder.card = OPEN
    with pytest.raises(ValueError, match="exists and is public; pass private=False, or another id"):
        stamp.image_encoder.push_to_hub("someone/images")


@pytest.mark.parametrize(
    "card",
    [
        ModelCard(license="CC-BY-NC-ND-4.0"),
        ModelCard(license="CC-BY-4.0", terms=("UNI: CC-BY-NC-ND-4.0",)),
        ModelCard(license="MIT", terms=("its makers forbid commercial use and derivatives",)),
        ModelCard(license="MIT", trained_on=("align: image encoder UNI (cc-by-nd-4.0)",)),
    ],
    ids=lambda card: card.license,
)
def test_terms_that_forbid_derivatives_stop_a_push(stamp, hub, card, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    stamp.card = card
    with pytest.raises(ValueError, match="terms that forbid derivatives .* license_checked=True"):
        stamp.push_to_hub("someone/new")
    assert not hub.requests
    commit = stamp.push_to_hub("someone/new", license_checked=True)
    assert Stamp.from_pretrained("someone/new", revision=commit).card.terms == card.terms


def test_other_terms_do_not_stop_a_push(stamp, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    stamp.card = dataclasses.replace(OPEN, terms=("H-optimus-0: Apache-2.0", "x: CC-BY-NC-SA-4.0"))
    stamp.push_to_hub("someone/new")
    page = hub.repositories["someone/new"].commits.popitem()[1]["README.md"]
    assert b"- H-optimus-0: Apache-2.0" in page


def test_a_card_without_a_license_warns(stamp, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    with pytest.warns(UserWarning, match="the card states no license"):
        stamp.push_to_hub("someone/new")


def test_a_push_without_login_or_hub_is_explained(stamp, hub, monkeypatch):
    stamp.card = OPEN
    with pytest.raises(PermissionError, match="does not let you write to someone/new .* HF_TOKEN"):
        stamp.push_to_hub("someone/new")
    with pytest.raises(ValueError, match="'a b/c' is not an id of the hub"):
        stamp.push_to_hub("a b/c")
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    start = time.perf_counter()
    with pytest.raises(OSError, match="cannot upload to someone/new: .* cannot be reached"):
        stamp.push_to_hub("someone/new")
    assert time.perf_counter() - start < 5
