"""Remote stores are embedded like local ones; results are uploaded or stay in a folder."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import spatialdata
import zarr

from stp.cli.main import main
from stp.data.store import SpotStore
from stp.io import embed_stores

KEYS = ["X_stp_genes", "X_stp_images"]


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "manifest.jsonl"


@pytest.fixture
def local(stores, stamp, tmp_path):
    """A store on disk with embeddings."""
    folder = Path(shutil.copytree(stores[0], tmp_path / "local.zarr"))
    embed_stores(folder, stamp, manifest=tmp_path / "local.jsonl")
    return folder


@pytest.fixture
def other_stamp(stamp):
    """The same Stamp with other weights."""
    import copy

    import torch

    other = copy.deepcopy(stamp)
    with torch.no_grad():
        for weights in other.parameters():
            weights.mul_(1.5)
    return other


def lines_of(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def digest_of(folder):
    """Return the digest of the model that the image embeddings of a store are recorded for."""
    group = zarr.open_group(folder, mode="r", use_consolidated=False)
    path = "tables/table/uns/X_stp_images/model/digest"
    return str(group[path][()]) if path in group else ""


def features_of(folder):
    group = zarr.open_group(folder, mode="r", use_consolidated=False)
    return group["tables/table/obsm/X_stp_images"][:]


def check_equal(folder, local):
    """Compare the results of a store with those of a local one, and both with the whole store."""
    table, expected = (spatialdata.read_zarr(path)["table"] for path in (folder, local))
    assert set(table.obsm) == set(expected.obsm)
    for key in (*KEYS, "spatial"):
        np.testing.assert_array_equal(table.obsm[key], expected.obsm[key])
    for key in KEYS:
        assert table.uns[key]["model"]["digest"] == expected.uns[key]["model"]["digest"]
    assert (table.X != expected.X).nnz == 0


def test_results_are_uploaded_and_finished_stores_are_skipped(
    s3, stores, stamp, local, cache, manifest
):
    url = s3.put(stores[0])
    assert embed_stores([url], stamp, manifest=manifest) == 0
    check_equal(SpotStore(url).path, local)
    s3.server.forget()
    assert embed_stores([url], stamp, manifest=manifest) == 0
    first, second = lines_of(manifest)
    assert (first["store"], first["status"], first["written"]) == (url, "embedded", KEYS)
    assert (second["status"], second["written"]) == ("skipped", [])
    assert not [path for path in s3.server.requests() if "/images/" in path and "/c/" in path]
    assert not list((cache / "embedding").iterdir())


def test_results_of_another_model_are_replaced(
    s3, stores, stamp, other_stamp, local, cache, manifest
):
    url = s3.put(stores[0])
    embed_stores(url, other_stamp, manifest=manifest)
    embed_stores(url, stamp, manifest=manifest)
    assert lines_of(manifest)[1]["written"] == KEYS
    check_equal(SpotStore(url).path, local)


@pytest.mark.parametrize("n_uploads", [2, 12])
def test_an_upload_that_was_stopped_is_noticed_and_repeated(
    n_uploads, own_s3, local, stores, stamp, other_stamp, cache, manifest, tmp_path
):
    """No embedding of one model bears the record of the other, wherever the upload stops."""
    other = Path(shutil.copytree(stores[0], tmp_path / "other.zarr"))
    embed_stores(other, other_stamp, manifest=manifest)
    expected = {digest_of(path): features_of(path) for path in (local, other)}
    url = own_s3.put(other)
    own_s3.server.fail_after(n_uploads)  # the first is that of the check
    assert embed_stores(url, stamp, manifest=manifest) == 1
    line = lines_of(manifest)[-1]
    assert line["error"].startswith("ConnectionError: ") and line["written"] == []
    own_s3.server.fail_after(math.inf)
    copy = SpotStore(url).path
    if digest_of(copy):
        np.testing.assert_array_equal(features_of(copy), expected[digest_of(copy)])
    shutil.rmtree(cache)  # as another machine
    assert embed_stores(url, other_stamp, manifest=manifest) == 0
    check_equal(SpotStore(url).path, other)


def test_results_that_could_not_be_uploaded_are_uploaded_by_the_next_call(
    own_s3, stores, stamp, local, cache, manifest
):
    server = own_s3.server
    url = own_s3.put(stores[0])
    server.fail_after(1)
    assert embed_stores(url, stamp, manifest=manifest) == 1
    server.fail_after(math.inf)
    server.forget()
    assert embed_stores(url, stamp, manifest=manifest) == 0
    assert lines_of(manifest)[1]["written"] == KEYS
    assert not [path for path in server.requests() if "/images/" in path and "/c/" in path]
    check_equal(SpotStore(url).path, local)


def test_copies_with_results_stay_in_a_folder(web, stores, stamp, local, cache, manifest, tmp_path):
    web.start(TOKEN="hidden")
    url = f"http://me:hidden@{web.host}/slide0.zarr?token=hidden"
    folder = tmp_path / "embedded"
    assert embed_stores(url, stamp, manifest=manifest, output_dir=folder) == 0
    check_equal(folder / "slide0.zarr", local)
    n_requests = len(web.requests())
    assert embed_stores(url, stamp, manifest=manifest, output_dir=folder) == 0
    assert [line["status"] for line in lines_of(manifest)] == ["embedded", "skipped"]
    assert len(web.requests()) == n_requests + 2  # the metadata, by the check and the embedding
    assert "hidden" not in manifest.read_text()


def test_a_store_that_cannot_be_written_to_is_refused_first(web, stores, stamp, cache, manifest):
    web.start(TOKEN="hidden")
    url = f"http://me:hidden@{web.host}/slide0.zarr?token=hidden"
    with pytest.raises(ValueError, match=r"slide0.zarr, because .*; give output_dir=") as error:
        embed_stores([stores[1], url], stamp, manifest=manifest)
    assert "hidden" not in str(error.value)
    assert not manifest.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b.zarr", "there is no store at http://HOST/b.zarr"),
        ("slide0.zarr/tables", "http://HOST/slide0.zarr/tables"),
    ],
)
def test_a_remote_store_that_is_none_is_found_first(name, message, web, stamp, cache, manifest):
    web.start()
    url = f"http://me:hidden@{web.host}/{name}"
    with pytest.raises(ValueError, match=message.replace("HOST", web.host)) as error:
        embed_stores(url, stamp, manifest=manifest, output_dir=cache)
    assert "hidden" not in str(error.value)


def test_two_remote_stores_of_one_name_need_two_folders(web, stamp, cache, manifest):
    web.start()
    urls = [f"http://{web.host}/slide0.zarr", f"http://localhost:{web.port}/slide0.zarr"]
    with pytest.raises(ValueError, match="2 remote stores have the name slide0.zarr"):
        embed_stores(urls, stamp, manifest=manifest, output_dir=cache)


def test_a_folder_with_another_store_of_the_name_is_left_alone(
    web, stores, stamp, cache, manifest, tmp_path
):
    web.start()
    shutil.copytree(stores[1], tmp_path / "slide0.zarr")
    url = f"http://{web.host}/slide0.zarr"
    assert embed_stores(url, stamp, manifest=manifest, output_dir=tmp_path) == 1
    assert "slide0.zarr is another store than http://" in lines_of(manifest)[0]["error"]


def test_a_server_that_dies_fails_one_store_and_the_next_call_goes_on(
    web, stores, stamp, local, cache, manifest, tmp_path
):
    web.start(DIES_AFTER=30)
    url = f"http://me:hidden@{web.host}/slide0.zarr"
    good = Path(shutil.copytree(stores[1], tmp_path / "good.zarr"))
    folder = tmp_path / "embedded"
    assert embed_stores([url, good], stamp, manifest=manifest, output_dir=folder) == 1
    failed, embedded = lines_of(manifest)
    assert failed["error"].startswith(f"ConnectionError: http://{web.host}/slide0.zarr cannot")
    assert embedded["status"] == "embedded"
    web.kill()
    web.start()
    assert embed_stores([url, good], stamp, manifest=manifest, output_dir=folder) == 0
    check_equal(folder / "slide0.zarr", local)
    assert "hidden" not in manifest.read_text()


def test_the_command_embeds_remote_stores(s3, stores, stamp, local, cache, manifest, tmp_path):
    url = s3.put(stores[0])
    stamp.save_pretrained(tmp_path / "stamp")
    command = ["embed", url, "--model", str(tmp_path / "stamp"), "--manifest", str(manifest)]
    assert main(command) == 0
    assert main([*command, "--output-dir", str(tmp_path / "embedded")]) == 0
    check_equal(tmp_path / "embedded" / "slide0.zarr", local)


def test_the_log_of_a_failure_has_no_password(web, stamp, cache, manifest, capsys):
    web.start(DIES_AFTER=2)
    url = f"http://me:hidden@{web.host}/slide0.zarr?token=hidden"
    assert embed_stores(url, stamp, manifest=manifest, output_dir=cache) == 1
    shown = capsys.readouterr()
    assert "was not embedded" in shown.err and "Traceback" in shown.err
    assert "hidden" not in shown.err + shown.out
