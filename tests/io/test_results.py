import os
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata
import zarr
from spatialdata._io.format import SpatialDataContainerFormatV01
from tests.forks import CONTEXT, Fork

from stp.io import write_results
from stp.tables.table import record


@pytest.fixture
def on_disk(stores, tmp_path):
    """A store that only this test writes to, read back."""
    path = tmp_path / "a.zarr"
    shutil.copytree(stores[0], path)
    return spatialdata.read_zarr(path)


def contents(path):
    """Return bytes and time of every file of the store, without metadata."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
    return {
        str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files
    }


def add_results(table):
    n = table.n_obs
    table.obsm["X_stp"] = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    table.obsm["tokens"] = np.arange(n * 3, dtype=np.uint16).reshape(n, 3)
    table.obs["inside"] = np.arange(n) % 3 == 0
    table.obs["n"] = np.arange(n)
    table.obs["leiden"] = pd.Categorical(np.where(np.arange(n) < 9, "a", "b"))
    table.obs["note"] = [f"spot {i}" for i in range(n)]
    record(table, "X_stp", {"layer": None, "names": ["a", "b"], "nested": {"um": 0.5}})


def assert_same_results(table, expected):
    for key in ("X_stp", "tokens"):
        np.testing.assert_array_equal(table.obsm[key], expected.obsm[key])
        assert table.obsm[key].dtype == expected.obsm[key].dtype
    assert set(table.obs) == set(expected.obs)
    pd.testing.assert_frame_equal(table.obs[list(expected.obs)], expected.obs)
    params = table.uns["X_stp"]["params"]
    assert (params["layer"], list(params["names"]), params["nested"]) == (
        None,
        ["a", "b"],
        {"um": 0.5},
    )


def test_results_are_written_without_warnings_of_other_packages(on_disk):
    add_results(on_disk["table"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_results(on_disk)
    assert "X_stp" in spatialdata.read_zarr(on_disk.path)["table"].obsm


def test_results_are_added_and_nothing_else_is_touched(on_disk):
    before = contents(on_disk.path)
    add_results(on_disk["table"])
    write_results(on_disk)
    after = contents(on_disk.path)
    assert {name: after[name] for name in before} == before
    new = {"/".join(name.split("/")[:4]) for name in after.keys() - before.keys()}
    expected = {
        "obsm": ("X_stp", "tokens"),
        "obs": ("inside", "n", "leiden", "note"),
        "uns": ("X_stp",),
    }
    assert new == {f"tables/table/{slot}/{key}" for slot, keys in expected.items() for key in keys}
    assert not list(on_disk.path.parent.glob(".*"))


def test_results_are_read_back(on_disk):
    add_results(on_disk["table"])
    write_results(on_disk)
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], on_disk["table"])


def test_consolidated_metadata_knows_the_results(on_disk):
    add_results(on_disk["table"])
    assert on_disk.has_consolidated_metadata()
    write_results(on_disk)
    group = zarr.open_consolidated(on_disk.path, mode="r")
    np.testing.assert_array_equal(
        group["tables/table/obsm/X_stp"][:], on_disk["table"].obsm["X_stp"]
    )
    assert list(group["tables/table/obs"].attrs["column-order"]) == list(on_disk["table"].obs)


def test_a_sdata_written_by_spatialdata_is_as_good(sdata, tmp_path):
    sdata.write(tmp_path / "own.zarr")
    add_results(sdata["table"])
    write_results(sdata)
    assert_same_results(spatialdata.read_zarr(tmp_path / "own.zarr")["table"], sdata["table"])


def test_more_results_join_those_before(on_disk):
    add_results(on_disk["table"])
    write_results(on_disk)
    back = spatialdata.read_zarr(on_disk.path)
    back["table"].obsm["X_stp"] = np.zeros((100, 2), np.float32)  # not named, so not replaced
    back["table"].obsm["X_more"] = np.ones((100, 2), np.float32)
    back["table"].obs["more"] = 1.5
    write_results(back)
    stored = spatialdata.read_zarr(on_disk.path)["table"]
    np.testing.assert_array_equal(stored.obsm["X_stp"], on_disk["table"].obsm["X_stp"])
    assert stored.obsm["X_more"].sum() == 200
    assert list(stored.obs) == [*on_disk["table"].obs, "more"]


def test_only_named_keys_are_written_and_those_are_replaced(on_disk):
    add_results(on_disk["table"])
    write_results(on_disk, keys=["X_stp", "leiden"])
    stored = spatialdata.read_zarr(on_disk.path)["table"]
    assert "X_stp" in stored.obsm
    assert "X_stp" in stored.uns
    assert "tokens" not in stored.obsm
    assert list(stored.obs.columns[-2:]) == ["stp_spot", "leiden"]
    write_results(on_disk, keys="note")
    assert list(spatialdata.read_zarr(on_disk.path)["table"].obs.columns[-2:]) == ["leiden", "note"]
    on_disk["table"].obsm["X_stp"] = np.full((100, 7), 2.0, np.float32)
    on_disk["table"].obs["leiden"] = pd.Categorical(["c"] * 100)
    write_results(on_disk, keys=["X_stp", "leiden"])
    stored = spatialdata.read_zarr(on_disk.path)["table"]
    assert stored.obsm["X_stp"].shape == (100, 7)
    assert set(stored.obs["leiden"]) == {"c"}
    assert list(stored.obs.columns).count("leiden") == 1


def test_named_keys_that_the_table_has_no_more_are_removed(on_disk):
    table = on_disk["table"]
    table.obs["seen"] = 1
    table.obsm["X_old"] = np.zeros((table.n_obs, 2))
    table.uns["X_old"] = {"params": {}}
    write_results(on_disk)
    del table.obs["seen"], table.obsm["X_old"]
    write_results(on_disk, keys=["seen", "X_old"])
    again = spatialdata.read_zarr(on_disk.path)["table"]
    assert "seen" not in again.obs and "X_old" not in again.obsm and "X_old" in again.uns
    with pytest.raises(KeyError, match="seen.*none of obsm, obs and uns"):
        write_results(on_disk, keys=["seen"])


def test_nothing_new_writes_nothing(on_disk):
    before = contents(on_disk.path)
    write_results(on_disk)
    assert contents(on_disk.path) == before


def test_unknown_keys_are_named(on_disk):
    add_results(on_disk["table"])
    with pytest.raises(KeyError, match=r"\['x'\] are in none of obsm, obs and uns; check keys="):
        write_results(on_disk, keys=["X_stp", "x"])
    assert "X_stp" not in spatialdata.read_zarr(on_disk.path)["table"].obsm


def test_other_rows_are_refused(on_disk):
    before = contents(on_disk.path)
    add_results(on_disk["table"])
    whole = on_disk["table"]
    for rows in (slice(50), np.arange(100)[::-1]):
        on_disk.tables["table"] = whole[rows].copy()
        with pytest.raises(ValueError, match="rows of the table are not those of the store"):
            write_results(on_disk)
    assert contents(on_disk.path) == before


def test_a_sdata_not_on_disk_is_refused(sdata):
    with pytest.raises(
        ValueError, match=r"not on disk; call sdata\.write\(path\) or stp\.io\.write_store first"
    ):
        write_results(sdata)


def test_a_store_that_is_read_only_is_refused_before_anything_is_written(on_disk, monkeypatch):
    add_results(on_disk["table"])
    before = contents(on_disk.path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"a\.zarr cannot be written to; copy the store"):
        write_results(on_disk)
    assert contents(on_disk.path) == before


def test_an_unknown_table_lists_the_tables(on_disk):
    with pytest.raises(KeyError, match=r"no table 'cells'.*\['table'\]"):
        write_results(on_disk, table_key="cells")


def replace_some(table):
    """Give two columns other values, for results that are on disk."""
    table.obs["inside"] = ~table.obs["inside"]
    table.obs["n"] = table.obs["n"] + 1


REPLACED = ["inside", "n", "X_stp"]


class Stopped(KeyboardInterrupt):
    pass


def stopped_at(step, function):
    """Stop at the call of this number."""
    calls = []

    def call(*args, **options):
        calls.append(args)
        if len(calls) == step:
            raise Stopped
        return function(*args, **options)

    return call


# One move for each of two arrays, four columns and a record.
@pytest.mark.parametrize("step", range(1, 8))
def test_a_failure_leaves_the_table_as_it_was(on_disk, step, monkeypatch):
    before = contents(on_disk.path)
    columns = list(on_disk["table"].obs)
    add_results(on_disk["table"])
    monkeypatch.setattr(Path, "rename", stopped_at(step, Path.rename))
    with pytest.raises(Stopped):
        write_results(on_disk)
    monkeypatch.undo()
    assert contents(on_disk.path) == before
    assert list(spatialdata.read_zarr(on_disk.path)["table"].obs) == columns
    assert not list(on_disk.path.parent.glob(".*"))


# The record leaves; then array and columns leave and enter, each in turn; then the record enters.
@pytest.mark.parametrize("step", range(1, 9))
def test_a_failure_while_replacing_leaves_the_old_results(on_disk, step, monkeypatch):
    add_results(on_disk["table"])
    write_results(on_disk)
    before = contents(on_disk.path)
    expected = on_disk["table"].copy()
    replace_some(on_disk["table"])
    monkeypatch.setattr(Path, "rename", stopped_at(step, Path.rename))
    with pytest.raises(Stopped):
        write_results(on_disk, keys=REPLACED)
    monkeypatch.undo()
    assert contents(on_disk.path) == before
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], expected)


def test_a_call_that_was_stopped_before_the_metadata_is_completed_by_the_next(on_disk, monkeypatch):
    add_results(on_disk["table"])
    monkeypatch.setattr(zarr, "consolidate_metadata", stopped_at(1, zarr.consolidate_metadata))
    with pytest.raises(Stopped):
        write_results(on_disk)
    monkeypatch.undo()
    write_results(on_disk)
    assert "X_stp" in zarr.open_consolidated(on_disk.path, mode="r")["tables/table/obsm"]


def write_until(step, path):
    """Replace results in a store; kill the process when it moves a file or folder that often."""
    rename = Path.rename
    n_moves = 0

    def move(*paths):
        nonlocal n_moves
        n_moves += 1
        if n_moves == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*paths)

    sdata = spatialdata.read_zarr(path)
    sdata["table"].obs["inside"] = ~sdata["table"].obs["inside"]
    sdata["table"].obs["n"] += 1
    Path.rename = move
    write_results(sdata, keys=["inside", "n", "X_stp"])


@pytest.fixture
def kill_at(tmp_path_factory):
    messages = tmp_path_factory.mktemp("messages") / "stderr"

    def run(path, step):
        process = Fork(write_until, step, path, messages=messages)
        assert process.wait() == -signal.SIGKILL, process.messages()

    return run


@pytest.mark.parametrize("step", [1, 3, 6, 8])
def test_killed_at_any_step_the_store_is_readable_and_the_next_call_repairs_it(
    on_disk, step, kill_at
):
    table = on_disk["table"]
    add_results(table)
    write_results(on_disk)
    before = contents(on_disk.path)
    expected = table.copy()
    kill_at(on_disk.path, step)
    stored = spatialdata.read_zarr(on_disk.path)["table"]
    assert set(stored.obs) <= set(table.obs)
    assert (stored.X != expected.X).nnz == 0
    assert ("X_stp" in stored.uns) == (step == 1), "no result has the record of another"
    write_results(on_disk, keys=[])
    assert contents(on_disk.path) == before
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], expected)
    replace_some(table)
    write_results(on_disk, keys=REPLACED)
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], table)
    assert not list(on_disk.path.parent.glob(".*"))


def test_what_a_killed_process_left_does_not_change_another_store_in_its_place(
    on_disk, kill_at, tmp_path
):
    add_results(on_disk["table"])
    write_results(on_disk)
    other = shutil.copytree(on_disk.path, tmp_path / "other" / "a.zarr")
    kill_at(on_disk.path, 6)
    shutil.rmtree(on_disk.path)
    shutil.copytree(other, on_disk.path)
    before = contents(on_disk.path)
    write_results(on_disk)
    assert contents(on_disk.path) == before
    assert not list(on_disk.path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("n", "my column", r"obs\['my column'\] cannot be written, because .* rename it"),
        ("n", "_index", r"obs\['_index'\] cannot be written"),
        ("n", "N", r"obs\['N'\] cannot be written, because 'n' differs only in upper"),
    ],
)
def test_names_that_spatialdata_cannot_read_are_refused(on_disk, first, second, message):
    on_disk["table"].obs[first] = 1
    write_results(on_disk)
    before = contents(on_disk.path)
    on_disk["table"].obs[second] = 2
    with pytest.raises(ValueError, match=message):
        write_results(on_disk)
    assert contents(on_disk.path) == before


def add_three_results(path, name, barrier):
    """Add results to a store, one at a time, with another process at the same time."""
    sdata = spatialdata.read_zarr(path)
    table = sdata["table"]
    barrier.wait()
    for number in range(3):
        table.obsm[f"X_{name}{number}"] = np.full((table.n_obs, 4), number, np.float32)
        table.obs[f"{name}{number}"] = number
        table.obs["both"] = name
        table.uns["both"] = name
        write_results(sdata, keys=[f"X_{name}{number}", f"{name}{number}", "both"])


def test_results_of_two_processes_are_all_there(on_disk, tmp_path):
    names = ("a", "b")
    barrier = CONTEXT.Barrier(2)
    processes = [
        Fork(add_three_results, on_disk.path, name, barrier, messages=tmp_path / f"{name}.stderr")
        for name in names
    ]
    assert [process.wait() for process in processes] == [0, 0], processes[0].messages()
    table = spatialdata.read_zarr(on_disk.path)["table"]
    metadata = zarr.open_consolidated(on_disk.path, mode="r")["tables/table"]
    for name in names:
        for number in range(3):
            assert (table.obsm[f"X_{name}{number}"] == number).all()
            assert (table.obs[f"{name}{number}"] == number).all()
            assert f"X_{name}{number}" in metadata["obsm"]
            assert f"{name}{number}" in metadata["obs"].attrs["column-order"]
    assert set(table.obs["both"]) == {table.uns["both"]}, "entries of one call stay together"


@pytest.fixture
def old_store(sdata, tmp_path):
    """A store of an older SpatialData, in zarr v2."""
    sdata.write(tmp_path / "old.zarr", sdata_formats=SpatialDataContainerFormatV01())
    with pytest.warns(UserWarning, match="not stored in the most current format"):
        return spatialdata.read_zarr(tmp_path / "old.zarr")


@pytest.mark.filterwarnings("ignore:SpatialData is not stored")
def test_a_store_of_zarr_v2_stays_one(old_store):
    add_results(old_store["table"])
    write_results(old_store)
    assert not list(old_store.path.rglob("zarr.json"))
    assert_same_results(spatialdata.read_zarr(old_store.path)["table"], old_store["table"])
    replace_some(old_store["table"])
    write_results(old_store, keys=REPLACED)
    assert_same_results(spatialdata.read_zarr(old_store.path)["table"], old_store["table"])
    group = zarr.open_consolidated(old_store.path, mode="r")
    assert group.metadata.zarr_format == 2
    assert "X_stp" in group["tables/table/obsm"]


def test_a_table_on_disk_without_a_slot_gets_it(on_disk):
    for slot in ("obsm", "uns"):
        shutil.rmtree(on_disk.path / "tables" / "table" / slot)
    add_results(on_disk["table"])
    write_results(on_disk, keys=["X_stp"])
    stored = zarr.open_group(on_disk.path, mode="r", use_consolidated=False)["tables/table"]
    assert stored["obsm/X_stp"].shape == (100, 4)
    assert "X_stp" in stored["uns"]


@pytest.mark.parametrize(
    "path", ["s3://bucket/a.zarr", Path("s3://bucket/a.zarr"), "https://host/a.zarr", "memory://a"]
)
def test_a_remote_store_is_refused_before_any_work(on_disk, path):
    add_results(on_disk["table"])
    on_disk.path = path
    with pytest.raises(ValueError, match=r"is remote.*download the store first"):
        write_results(on_disk)


def test_the_path_of_a_store_may_be_text_or_an_address_of_a_local_file(on_disk):
    folder = on_disk.path
    for number, path in enumerate((str(folder), folder.as_uri())):
        on_disk.path = path
        on_disk["table"].obs[f"number_{number}"] = number
        write_results(on_disk)
    assert {"number_0", "number_1"} <= set(spatialdata.read_zarr(folder)["table"].obs)


def test_a_link_to_a_store_is_written_through(on_disk):
    link = on_disk.path.with_name("link.zarr")
    link.symlink_to(on_disk.path)
    linked = spatialdata.read_zarr(link)
    linked["table"].obs["n"] = 1
    write_results(linked)
    assert "n" in spatialdata.read_zarr(on_disk.path)["table"].obs
    assert link.is_symlink()


def test_a_table_that_is_not_on_disk_is_refused(on_disk):
    on_disk.tables["other"] = on_disk["table"].copy()
    with pytest.raises(FileNotFoundError, match=r"a\.zarr has no table 'other' on disk"):
        write_results(on_disk, table_key="other")


def test_files_that_a_killed_process_left_do_no_harm(on_disk):
    scratch = on_disk.path.with_name(".a.zarr.results")
    for folder in ("old/obs/n", "new/obs/n", "obs/n"):
        (scratch / folder).mkdir(parents=True)
    add_results(on_disk["table"])
    write_results(on_disk)
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], on_disk["table"])
    assert not scratch.exists()


def test_a_value_that_cannot_be_written_changes_nothing(on_disk):
    before = contents(on_disk.path)
    add_results(on_disk["table"])
    on_disk["table"].uns["unknown"] = {"value": object()}
    with pytest.raises(Exception, match="object"):
        write_results(on_disk)
    assert contents(on_disk.path) == before
    assert not list(on_disk.path.parent.glob(".*"))
