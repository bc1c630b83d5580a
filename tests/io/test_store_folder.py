"""Processes that write one store at the same time."""

import shutil
from pathlib import Path

import pytest
import spatialdata
from tests.forks import CONTEXT, Fork

from stp._lock import lock
from stp.datasets import synthetic_visium
from stp.io import write_store


def write(path, seed, overwrite, barrier, results):
    """Write a slide when the other process is ready, too; report what happened."""
    slide = synthetic_visium(seed=seed, n_rows=6, n_cols=6)
    barrier.wait()
    try:
        write_store(slide, path, patch_um_per_px=2.0, overwrite=overwrite)
        results.put("written")
    except (BlockingIOError, FileExistsError) as error:
        results.put(type(error).__name__)


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_write_one_store_one_after_the_other(tmp_path, overwrite):
    path = tmp_path / "a.zarr"
    barrier = CONTEXT.Barrier(2)
    queue = CONTEXT.SimpleQueue()
    processes = [
        Fork(write, path, seed, overwrite, barrier, queue, messages=tmp_path.with_suffix(".stderr"))
        for seed in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0], processes[0].messages()
    results = sorted(queue.get() for _ in processes)
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
