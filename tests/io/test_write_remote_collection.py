"""Collections on S3: each attempt has its own folder, and the table says which one is the row's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from tests.slides import make_slide

import stp
from stp.cli.main import main
from stp.cli.recipe_stores import CollectionRows, find_stores
from stp.data.store import SpotStore
from stp.io import read_collection, write_collection

NAMES = ["s0", "s 1", "s2"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Write three small tables of counts and their manifest."""
    folder = tmp_path_factory.mktemp("sources")
    lines = []
    for seed, name in enumerate(NAMES):
        make_slide(seed, 4, 4)[0].write_h5ad(folder / f"{name}.h5ad")
        lines.append({"name": name, "path": str(folder / f"{name}.h5ad"), "patient": f"00{seed}"})
    pd.DataFrame(lines).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def manifest(sources):
    return pd.read_csv(sources / "manifest.csv", dtype=str)


@pytest.fixture(scope="module")
def local(sources, tmp_path_factory):
    """Write the collection into a folder of this disk."""
    return write_collection(
        sources / "manifest.csv", tmp_path_factory.mktemp("local"), n_workers=1
    ).table


def statuses(s3, folder="out"):
    """Return what the last lines of the log say of each row."""
    lines = s3.files.cat_file(f"{s3.bucket}/{folder}/prepare.jsonl").decode().splitlines()
    return {line["name"]: line["status"] for line in map(json.loads, lines)}


def whole_stores(s3, folder="out"):
    """List the paths of the stores whose root file is there."""
    names = s3.names(folder)
    return {name.removesuffix("/zarr.json") for name in names if name.count("/") == 3 and
            name.endswith(".zarr/zarr.json")}


def same_but_path(a, b):
    return a.drop(columns=["path"]).equals(b.drop(columns=["path"]))


def test_a_collection_on_s3_is_that_on_disk(s3, sources, local, cache, capsys):
    url = s3.url("out")
    collection = write_collection(sources / "manifest.csv", url, n_workers=1)
    assert same_but_path(collection.table, local)
    assert whole_stores(s3) == set(collection.table["path"])
    again = read_collection(f"{url}/collection.parquet")
    assert same_but_path(read_collection(f"{url}/collection.csv").table, local)
    assert list(again) == list(collection) == [f"{url}/{path}" for path in again.table["path"]]
    assert [SpotStore(path).digest for path in again] == list(local["digest"])
    assert {name for name in s3.names("out") if ".zarr/" not in name} == {
        "collection.csv",
        "collection.parquet",
        "prepare.jsonl",
    }
    assert not list((cache / "preparing").iterdir())
    write_collection(sources / "manifest.csv", url, n_workers=1)
    assert set(statuses(s3).values()) == {"skipped"}
    texts = [s3.files.cat_file(f"{s3.bucket}/out/{name}") for name in s3.names("out")]
    assert b"SECRETKEY" not in b"".join(texts)
    assert "SECRETKEY" not in capsys.readouterr().err
