"""Collections on S3: each attempt has its own folder, and the table says which one is the row's."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import stp
from stp.cli.main import main
from stp.cli.recipe_stores import CollectionRows, find_stores
from stp.data.store import SpotStore
from stp.io import read_collection, write_collection
from stp.train import Phase, PretrainConfig, pretrain

NAMES = ["s0", "s 1"]
TABLES = {"collection.csv", "collection.parquet", "prepare.jsonl"}
GENES = stp.Vocabulary.default().symbols[:150]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Write two small tables of counts and their manifest."""
    folder = tmp_path_factory.mktemp("sources")
    lines = []
    for seed, name in enumerate(NAMES):
        counts = np.random.default_rng(seed).poisson(3, (12, len(GENES))).astype(np.float32)
        adata = anndata.AnnData(counts, var=pd.DataFrame(index=GENES))
        adata.obsm["spatial"] = np.argwhere(np.ones((4, 3))) * 100.0
        adata.write_h5ad(folder / f"{name}.h5ad")
        lines.append({"name": name, "path": f"{name}.h5ad", "patient": f"00{seed}"})
    pd.DataFrame(lines).assign(um_per_px=1.0).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture
def slides(sources, tmp_path):
    """Return a copy of the sources, which a test may change."""
    return shutil.copytree(sources, tmp_path / "sources")


@pytest.fixture(scope="module")
def local(sources, tmp_path_factory):
    """Write the collection into a folder of this disk."""
    folder = tmp_path_factory.mktemp("local")
    return write_collection(sources / "manifest.csv", folder, n_workers=1)


def statuses(s3):
    """Return what the last lines of the log say of each row."""
    lines = s3.files.cat_file(f"{s3.bucket}/out/prepare.jsonl").decode().splitlines()
    return {line["name"]: line["status"] for line in map(json.loads, lines)}


def whole_stores(s3):
    """List the paths of the stores whose root file is there."""
    roots = [name for name in s3.names("out") if name.endswith(".zarr/zarr.json")]
    return {name.removesuffix("/zarr.json") for name in roots}


def other_files(s3):
    """List the files that are in no whole store."""
    stores = tuple(f"{path}/" for path in whole_stores(s3))
    return {name for name in s3.names("out") if not name.startswith(stores)}


def same_stores(a, b):
    return a.table.drop(columns="path").equals(b.table.drop(columns="path"))


def test_a_collection_on_s3_is_that_on_disk(s3, sources, local, cache, capsys):
    url = s3.url("out")
    collection = write_collection(sources / "manifest.csv", url, n_workers=1)
    assert same_stores(collection, local)
    assert same_stores(read_collection(url), local)
    assert read_collection(f"{url}/collection.csv").digest == local.digest
    paths = set(collection.table["path"])
    assert whole_stores(s3) == paths
    assert other_files(s3) == TABLES
    assert list(read_collection(f"{url}/collection.parquet")) == [
        f"{url}/{path}" for path in collection.table["path"]
    ]
    assert [SpotStore(path).digest for path in collection] == list(local.table["digest"])
    assert not list((cache / "preparing").iterdir())
    # A row that was written twice, and one whose process was killed.
    files = s3.files
    place = f"{s3.bucket}/out"
    files.copy(f"{place}/{collection.table['path'][0]}", f"{place}/s0/{16 * 'f'}/s0.zarr", True)
    files.pipe_file(f"{place}/s 1/{16 * '0'}/s 1.zarr/tables/zarr.json", b"{}")
    files.pipe_file(f"{place}/s 1/mine/s 1.zarr/tables/zarr.json", b"{}")
    assert len(whole_stores(s3)) == 3
    write_collection(sources / "manifest.csv", url, n_workers=1)
    assert statuses(s3) == dict.fromkeys(NAMES, "skipped")
    assert whole_stores(s3) == paths
    assert other_files(s3) == {*TABLES, "s 1/mine/s 1.zarr/tables/zarr.json"}
    texts = [files.cat_file(f"{place}/{name}") for name in s3.names("out")]
    assert b"SECRETKEY" not in b"".join(texts) + capsys.readouterr().err.encode()


@pytest.mark.extended
def test_a_killed_call_leaves_whole_stores_and_the_next_one_does_the_rest(
    own_s3, sources, local, cache
):
    url = own_s3.url("out")
    n_files = sum(path.is_file() for path in (local.folder / "s0.zarr").rglob("*"))
    # The lock, a file that says that the call runs, the first store, and a part of the second.
    own_s3.server.fail_after(n_files + 12)
    code = (
        f"import stp; stp.settings.cache_dir = {str(cache)!r}\n"
        f"stp.io.write_collection({str(sources / 'manifest.csv')!r}, {url!r}, n_workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not any("/s 1/" in path for path in own_s3.server.requests("PUT")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (first,) = whole_stores(own_s3)
    assert first.endswith("/s0.zarr")
    own_s3.server.fail_after(math.inf)
    collection = write_collection(sources / "manifest.csv", url, n_workers=1)
    assert statuses(own_s3) == {"s0": "skipped", "s 1": "written"}
    assert collection.table["path"][0] == first
    assert same_stores(collection, local)
    assert whole_stores(own_s3) == set(collection.table["path"])
    assert other_files(own_s3) == TABLES
    assert not list((cache / "preparing").iterdir())


@pytest.mark.extended
def test_a_row_that_fails_does_not_stop_the_others_and_a_changed_one_is_replaced(
    s3, slides, local, cache
):
    url = s3.url("out")
    (slides / "s 1.h5ad").write_bytes(b"no h5ad")
    first = write_collection(slides / "manifest.csv", url, n_workers=1)
    assert list(first.table["name"]) == ["s0"]
    assert statuses(s3) == {"s0": "written", "s 1": "failed"}
    shutil.copy(slides / "s0.h5ad", slides / "s 1.h5ad")
    manifest = pd.read_csv(slides / "manifest.csv", dtype={"patient": str})
    manifest.loc[0, "patient"] = "009"
    manifest.to_csv(slides / "manifest.csv", index=False)
    second = write_collection(slides / "manifest.csv", url, n_workers=1)
    assert statuses(s3) == {"s0": "described", "s 1": "written"}
    assert list(second.table["digest"]) == [local.table["digest"][0]] * 2
    assert second.table["path"][0] == first.table["path"][0]
    root = json.loads(s3.files.cat_file(f"{s3.bucket}/out/{second.table['path'][0]}/zarr.json"))
    assert root["attributes"]["stp_metadata"]["patient"] == "009"
    os.utime(slides / "s0.h5ad", (1, 1))
    third = write_collection(slides / "manifest.csv", url, n_workers=1)
    assert statuses(s3) == {"s0": "written", "s 1": "skipped"}
    assert third.table["path"][0] != first.table["path"][0]
    assert whole_stores(s3) == set(third.table["path"])
    third.check_stores()
    with pytest.raises(ValueError, match="s0 is no training store"):
        first.check_stores()


def test_a_cluster_writes_to_s3_with_other_vocabularies(s3, slides, cache):
    mouse = stp.Vocabulary.from_genes([f"ENSMUSG{number:011}" for number in range(150)])
    adata = anndata.read_h5ad(slides / "s0.h5ad")
    adata.var_names = mouse.gene_ids
    adata.write_h5ad(slides / "s0.h5ad")
    manifest = pd.DataFrame({"name": ["m"], "path": [str(slides / "s0.h5ad")], "species": "mouse"})
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
        FarClient(cluster) as far,
    ):
        collection = write_collection(manifest, s3.url("out"), client=client, vocabulary=[mouse])
        message = f"not every worker can use {s3.url('far')}.*FileNotFoundError.*share"
        with pytest.raises(RuntimeError, match=message):
            write_collection(manifest, s3.url("far"), client=far, vocabulary=[mouse])
    assert [SpotStore(path).species for path in collection] == ["mouse"]
    assert other_files(s3) == TABLES


class FarClient(Client):
    """A client whose workers see another bucket."""

    def run(self, function, url, **options):
        return super().run(function, url.replace("far", "other"), **options)


@pytest.mark.slow
def test_a_collection_on_s3_is_split_and_trained_on(s3, sources, tiny_config, cache, tmp_path):
    url = s3.url("out")
    assert main(["prepare", str(sources / "manifest.csv"), "--out", url, "--workers", "1"]) == 0
    assert b"s 1" in s3.files.cat_file(f"{s3.bucket}/out/report.html")
    sides = ["--validation", "0", "--test", "0.5", "--no-duplicates"]
    assert main(["split", url, *sides]) == 0
    write_collection(sources / "manifest.csv", url, n_workers=1)  # keeps the split
    train = find_stores(
        tmp_path, CollectionRows(collection=f"{url}/collection.parquet", split="train")
    )
    assert len(train) == 1
    vocabulary = stp.Vocabulary.default().fit(train)
    config = PretrainConfig(phases=(Phase(batch_size=8),), min_genes=5)
    encoder = pretrain(
        train, tmp_path / "run", vocabulary=vocabulary, model=tiny_config.gene, config=config
    )
    assert encoder.card.trained_on
    assert f"{url}/s" in (tmp_path / "run" / "training.json").read_text()


def test_what_cannot_be_written_is_refused_before_any_work(s3, sources, cache):
    manifest = pd.read_csv(sources / "manifest.csv")
    manifest["path"] = f"{sources}/" + manifest["path"]
    with pytest.raises(PermissionError, match=r"https://host/out is on a web server"):
        write_collection(manifest, "https://me:hidden@host/out", n_workers=1)
    with pytest.raises(FileNotFoundError, match="s3://no-bucket/out"):
        write_collection(manifest, "s3://no-bucket/out", n_workers=1)
    manifest["name"] = ["a?", "c::d"]
    with pytest.raises(ValueError, match=r"2 faults(.|\n)*c::d: a name with"):
        write_collection(manifest, s3.url("out"), n_workers=1)
    assert not s3.names("out")
