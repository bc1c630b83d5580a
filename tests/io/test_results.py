import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata
import zarr
from spatialdata import SpatialData

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


class Killed(KeyboardInterrupt):
    pass


def killed_at(step, function):
    """Stop at the call of this number."""
    calls = []

    def call(*args, **options):
        calls.append(args)
        if len(calls) == step:
            raise Killed
        return function(*args, **options)

    return call


# One move for each of two arrays, four columns and a record, then the consolidated metadata.
STEPS = [(Path, "rename", step) for step in range(1, 8)]
STEPS.append((SpatialData, "write_consolidated_metadata", 1))


@pytest.mark.parametrize(("owner", "name", "step"), STEPS)
def test_killed_at_any_step_the_store_is_readable(on_disk, owner, name, step, monkeypatch):
    before = spatialdata.read_zarr(on_disk.path)["table"].to_memory()
    add_results(on_disk["table"])
    monkeypatch.setattr(owner, name, killed_at(step, getattr(owner, name)))
    with pytest.raises(Killed):
        write_results(on_disk)
    monkeypatch.undo()
    back = spatialdata.read_zarr(on_disk.path)
    assert (back["table"].X != before.X).nnz == 0
    pd.testing.assert_frame_equal(back["table"].obs[list(before.obs)], before.obs)
    is_complete = name != "rename"
    assert ("X_stp" in back["table"].uns) == is_complete, "the record comes last"
    write_results(on_disk)  # what was lost is written now
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], on_disk["table"])


# The record leaves; then array and columns leave and enter, each in turn; then the record enters.
@pytest.mark.parametrize("step", range(1, 9))
def test_killed_while_replacing_the_store_is_readable(on_disk, step, monkeypatch):
    add_results(on_disk["table"])
    write_results(on_disk)
    table = on_disk["table"]
    table.obs["inside"] = ~table.obs["inside"]
    table.obs["n"] = table.obs["n"] + 1
    monkeypatch.setattr(Path, "rename", killed_at(step, Path.rename))
    with pytest.raises(Killed):
        write_results(on_disk, keys=["inside", "n", "X_stp"])
    monkeypatch.undo()
    stored = spatialdata.read_zarr(on_disk.path)["table"]
    assert set(stored.obs) <= set(table.obs)
    assert ("X_stp" in stored.uns) == (step == 1), "no result has the record of another"
    write_results(on_disk, keys=["inside", "n", "X_stp"])
    assert_same_results(spatialdata.read_zarr(on_disk.path)["table"], table)


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
