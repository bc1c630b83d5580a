"""Processes that write one store at the same time."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spatialdata

from stp._lock import lock
from stp.io import write_store

WRITE = """
import sys
import stp
from stp.datasets import synthetic_visium
path, seed, overwrite = sys.argv[1:]
slide = synthetic_visium(seed=int(seed), n_rows=6, n_cols=6)
print("ready", flush=True)
sys.stdin.readline()
try:
    stp.io.write_store(slide, path, patch_um_per_px=2.0, overwrite=overwrite == "True")
    print("written")
except (BlockingIOError, FileExistsError) as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_write_one_store_one_after_the_other(tmp_path, overwrite):
    path = tmp_path / "a.zarr"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE, path, seed, str(overwrite)], **pipes)
        for seed in "01"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("start\n")
        process.stdin.flush()
    results = sorted(process.communicate()[0].strip() for process in processes)
    assert results[1] == "written"
    assert (
        results[0] == "written"
        if overwrite
        else results[0] in ("BlockingIOError", "FileExistsError")
    )
    store = spatialdata.read_zarr(path)
    spots = len(store["table"])
    (shapes,) = store.shapes.values()
    assert len(shapes) == spots
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_another_process_writes_is_not_written(tmp_path, sdata):
    path = tmp_path / "a.zarr"
    with lock(path, "writing to", wait=False):
        with pytest.raises(BlockingIOError, match=r"is writing to .*a\.zarr; wait for it"):
            write_store(sdata, path, patch_um_per_px=4.0)
    assert not list(tmp_path.iterdir())


def test_an_old_store_that_a_killed_call_left_is_no_hindrance(tmp_path, sdata, stores):
    path = tmp_path / "a.zarr"
    shutil.copytree(stores[0], path)
    shutil.copytree(stores[0], tmp_path / ".a.zarr.old")
    write_store(sdata, path, patch_um_per_px=4.0, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_url_that_pathlib_changed_is_refused(sdata):
    with pytest.raises(ValueError, match="s3://bucket/a.zarr was given as a Path"):
        write_store(sdata, Path("s3://bucket/a.zarr"), patch_um_per_px=4.0)
