"""Copies of remote stores: downloaded once, whole, again after a change, and by one process."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest
import zarr

from stp import settings
from stp.data.store import SpotStore
from stp.io import write_results

N_FILES = 40  # a store has more


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_store_of_a_web_server_is_that_on_disk(web, stores, cache):
    web.start()
    url = f"http://{web.host}/slide0.zarr"
    store = SpotStore(url)
    assert store.source == url
    assert store.path.name == "slide0.zarr" and store.path.is_relative_to(cache)
    assert contents(store.path) == contents(stores[0])
    n_requests = len(web.requests())
    assert n_requests > N_FILES
    assert SpotStore(url).path == store.path
    assert len(web.requests()) == n_requests + 1  # only the metadata


def test_a_store_of_s3_is_that_on_disk(s3, stores, cache):
    store = SpotStore(s3.put(stores[0]))
    assert contents(store.path) == contents(stores[0])
    s3.server.forget()
    assert SpotStore(store.source).path == store.path
    assert len(s3.server.requests()) == 2  # the metadata and the list of files


def test_a_store_with_shards_and_missing_chunks_is_that_on_disk(web, stores, cache, tmp_path):
    """A web server lists nothing, so the names of the chunks come from the metadata."""
    folder = shutil.copytree(stores[0], tmp_path / "site" / "a.zarr")
    table = zarr.open_group(folder, use_consolidated=False)["tables/table"]
    data = table["X/data"][:]
    del table["X/data"]
    attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
    table["X"].create_array("data", data=data, chunks=(64,), shards=(256,), attributes=attributes)
    table["obsm"].create_array(
        "sparse", data=np.eye(100, 40)[:, ::-1], chunks=(7, 9), attributes=attributes
    )
    zarr.consolidate_metadata(folder)
    chunks = [name for name in contents(folder) if name.startswith("tables/table/obsm/sparse/c/")]
    assert 5 < len(chunks) < 75  # chunks of zeros are not written
    server = type(web)(tmp_path / "requests", folder.parent)
    try:
        store = SpotStore(f"http://{server.start().host}/a.zarr")
        assert contents(store.path) == contents(folder)
    finally:
        server.kill()


@pytest.mark.parametrize("part", ["X/data", "X/indices"])
def test_counts_that_a_server_lost_are_noticed(part, web, stores, cache, tmp_path):
    folder = shutil.copytree(stores[0], tmp_path / "site" / "a.zarr")
    shutil.rmtree(folder / "tables/table" / part / "c")
    server = type(web)(tmp_path / "requests", folder.parent)
    try:
        url = f"http://{server.start().host}/a.zarr"
        with pytest.raises(ValueError, match=rf"{url} has lost a part of its counts"):
            list(SpotStore(url).counts(50))
    finally:
        server.kill()


@pytest.mark.parametrize("name", ["tables/table/var/zarr.json", "shapes/slide0/shapes.parquet"])
@pytest.mark.parametrize("kind", ["web", "s3"])
def test_a_store_without_a_file_is_refused(name, kind, s3, web, stores, cache, tmp_path):
    folder = shutil.copytree(stores[0], tmp_path / "site" / "a.zarr")
    (folder / name).unlink()
    server = type(web)(tmp_path / "requests", folder.parent)
    try:
        url = s3.put(folder) if kind == "s3" else f"http://{server.start().host}/a.zarr"
        with pytest.raises(ValueError, match=rf"{url} has lost {name}"):
            SpotStore(url)
    finally:
        server.kill()
    assert not list(cache.rglob("a.zarr"))


def test_a_changed_store_is_downloaded_again_and_its_old_copy_stays(s3, stores, cache):
    url = s3.put(stores[0], "a.zarr")
    first = SpotStore(url)
    s3.put(stores[1], "a.zarr")
    second = SpotStore(url)
    assert second.digest == SpotStore(stores[1]).digest != first.digest
    assert contents(second.path) == contents(stores[1])
    assert contents(first.path) == contents(stores[0])  # a run may read from it


def test_new_results_are_downloaded_without_the_image(s3, stores, cache, tmp_path):
    import spatialdata

    folder = shutil.copytree(stores[0], tmp_path / "a.zarr")
    url = s3.put(folder)
    former = SpotStore(url)
    sdata = spatialdata.read_zarr(folder)
    sdata["table"].obs["quality"] = 0.5
    write_results(sdata, keys="quality")
    s3.put(folder)
    s3.server.forget()
    store = SpotStore(url)
    assert contents(store.path) == contents(folder)
    assert store.path != former.path
    assert not [path for path in s3.server.requests() if "/images/" in path and "/c/" in path]


def test_a_value_that_changes_in_place_is_noticed_on_s3(s3, stores, cache, tmp_path):
    folder = shutil.copytree(stores[0], tmp_path / "a.zarr")
    url = s3.put(folder)
    SpotStore(url)
    group = zarr.open_group(folder, use_consolidated=False)
    group["tables/table/obsm/spatial"][0] = 1.0
    s3.put(folder)
    with pytest.raises(ValueError, match="changed after the store was written"):
        SpotStore(url).check_spots()


def _open(url, folder, queue):
    settings.cache_dir = folder
    queue.put(SpotStore(url).digest)


def test_processes_share_one_download(web, stores, cache):
    web.start()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    url = f"http://{web.host}/slide0.zarr"
    processes = [context.Process(target=_open, args=(url, cache, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {SpotStore(stores[0]).digest}
    chunks = [path for path in web.requests() if "/c/" in path]
    assert len(chunks) == len(set(chunks))


@pytest.mark.parametrize("dies_after", [1, 2, 30])
def test_a_web_server_that_dies_is_one_clear_error_and_the_next_call_goes_on(
    dies_after, web, stores, cache
):
    url = f"http://{web.host}/slide0.zarr"
    web.start(DIES_AFTER=dies_after)
    with pytest.raises(ConnectionError, match=rf"^{url} cannot be reached .*; check the address"):
        SpotStore(url)
    web.kill()
    assert not list(cache.rglob("slide0.zarr"))  # no copy that is not whole
    complete = [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".part"]
    assert len(complete) >= dies_after - 10  # eight at a time
    web.forget()
    web.start()
    store = SpotStore(url)
    assert contents(store.path) == contents(stores[0])
    assert len(web.requests()) <= len(contents(stores[0])) + 2 - len(complete)


def test_an_s3_server_that_dies_is_one_clear_error_and_the_next_call_goes_on(own_s3, stores, cache):
    url = own_s3.put(stores[0])
    server = own_s3.server
    server.kill()
    server.start(DIES_AFTER=20)
    own_s3.files.mkdir(own_s3.bucket)
    own_s3.put(stores[0])
    with pytest.raises(ConnectionError, match=rf"^{url} cannot be reached .*; check the address"):
        SpotStore(url)
    server.kill()
    server.forget()
    server.start()
    own_s3.files.mkdir(own_s3.bucket)
    own_s3.put(stores[0])
    server.forget()
    store = SpotStore(url)
    assert contents(store.path) == contents(stores[0])
    assert len(server.requests()) < len(contents(stores[0]))  # some are not fetched again


def test_a_file_that_was_cut_off_is_fetched_again(web, stores, cache):
    web.start()
    url = f"http://{web.host}/slide0.zarr"
    copy = SpotStore(url).path
    partial = copy.with_name(".slide0.zarr.partial")
    copy.rename(partial)
    file = partial / "tables/table/X/data/c/0"
    file.write_bytes(file.read_bytes()[:-1])
    web.forget()
    assert contents(SpotStore(url).path) == contents(stores[0])
    assert [path for path in web.requests() if "/c/" in path] == [
        "/slide0.zarr/tables/table/X/data/c/0"
    ]


def test_a_disk_that_is_too_small_is_noticed_first(web, stores, cache, tmp_path):
    """The metadata of the first file claim more bytes than any disk has."""
    web.start(CLAIMS=10**18)
    with pytest.raises(OSError, match=r"slide0.zarr takes .* GB, and .* GB left; set stp.settings"):
        SpotStore(f"http://{web.host}/slide0.zarr")
    assert not [path for path in web.requests() if "/c/" in path]


def test_a_store_whose_files_lie_outside_is_refused(web, cache, stores, tmp_path):
    folder = shutil.copytree(stores[0], tmp_path / "site" / "a.zarr")
    root = json.loads((folder / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    nodes["../../../evil"] = nodes["images"]
    (folder / "zarr.json").write_text(json.dumps(root))
    server = type(web)(tmp_path / "requests", folder.parent)
    try:
        with pytest.raises(ValueError, match="has a file '../../../evil/zarr.json'"):
            SpotStore(f"http://{server.start().host}/a.zarr")
    finally:
        server.kill()
    assert not list(tmp_path.rglob("evil*"))
