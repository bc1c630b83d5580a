"""Stores are uploaded whole, and a stop leaves no store."""

import math
import shutil
from pathlib import Path

import pytest

from stp.data.store import SpotStore
from stp.io import upload_store, write_store


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in Path(folder).rglob("*")
        if file.is_file()
    }


def test_an_uploaded_store_is_that_on_disk(s3, stores, cache):
    url = s3.url("stores/a.zarr")
    upload_store(stores[0], url)
    assert contents(SpotStore(url).path) == contents(stores[0])
    assert s3.server.requests("PUT")[-1].endswith("/stores/a.zarr/zarr.json")


def test_a_store_is_replaced_only_if_asked(s3, stores, cache):
    url = s3.url("a.zarr")
    upload_store(stores[0], url)
    with pytest.raises(FileExistsError, match=rf"^{url} exists; pass overwrite=True"):
        upload_store(stores[1], url)
    upload_store(stores[1], url, overwrite=True)
    assert contents(SpotStore(url).path) == contents(stores[1])
    assert s3.names("a.zarr") == set(contents(stores[1]))  # nothing of the other is left


def test_a_folder_with_other_files_is_never_replaced(s3, stores):
    s3.files.pipe_file(f"{s3.bucket}/data/patients.csv", b"1")
    with pytest.raises(FileExistsError, match="has 'patients.csv' and is no store"):
        upload_store(stores[0], s3.url("data"), overwrite=True)
    assert s3.names("data") == {"patients.csv"}


@pytest.mark.parametrize("n_uploads", [0, 30, 54])
def test_an_upload_that_was_stopped_is_no_store_and_is_repeated(n_uploads, own_s3, stores, cache):
    url = own_s3.put(stores[1], "a.zarr")
    own_s3.server.fail_after(n_uploads)
    with pytest.raises(ConnectionError, match=url):
        upload_store(stores[0], url, overwrite=True)
    own_s3.server.fail_after(math.inf)
    with pytest.raises(ValueError, match=f"there is no store at {url}"):
        SpotStore(url)
    upload_store(stores[0], url)
    assert contents(SpotStore(url).path) == contents(stores[0])
    assert own_s3.names("a.zarr") == set(contents(stores[0]))


def test_a_slide_is_written_to_a_server(s3, sdata, cache, tmp_path):
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    url = s3.url("a.zarr")
    write_store(sdata, url, patch_um_per_px=4.0)
    store = SpotStore(url)
    local = SpotStore(tmp_path / "a.zarr")
    assert (store.digest, store.name) == (local.digest, local.name)
    assert not list((cache / "writing").iterdir())
    with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
        write_store(sdata, url, patch_um_per_px=4.0)


@pytest.mark.parametrize("call", ["upload", "write"])
def test_a_web_server_cannot_be_written_to(call, web, stores, sdata, cache):
    url = f"https://me:hidden@{web.host}/a.zarr"
    with pytest.raises(PermissionError, match=r"a\.zarr is on a web server") as error:
        if call == "upload":
            upload_store(stores[0], url)
        else:
            write_store(sdata, url, patch_um_per_px=4.0)
    assert "hidden" not in str(error.value)


def test_only_training_stores_are_uploaded(s3, stores, tmp_path):
    folder = shutil.copytree(stores[0], tmp_path / "a.zarr")
    (folder / "zarr.json").unlink()
    with pytest.raises(ValueError, match="is not a training store"):
        upload_store(folder, s3.url("a.zarr"))
    with pytest.raises(ValueError, match="b.zarr is no address such as s3://"):
        upload_store(stores[0], tmp_path / "b.zarr")
    assert not s3.names("a.zarr")


def test_a_bucket_that_does_not_exist_is_named(s3, stores):
    with pytest.raises((FileNotFoundError, ConnectionError), match="s3://no-bucket/a.zarr"):
        upload_store(stores[0], "s3://no-bucket/a.zarr")
