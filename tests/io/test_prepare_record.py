"""A whole store gets its place once, also if two workers wrote the same row."""

import shutil

import pytest
import zarr
from tests.slides import make_slide

from stp.io import write_store
from stp.io._prepare_record import PreparedStore, Record, publish, write_record

FIRST = Record("source", None, {"bin_um": 8})
OTHER = Record("source", None, {"bin_um": 16})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Write a store of counts."""
    store = tmp_path_factory.mktemp("stores") / "slide.zarr"
    write_store(make_slide(0, 4, 4)[0], store)
    return store


@pytest.fixture
def attempt_of(finished, tmp_path):
    """Return a function that makes a whole store of a record in its own folder."""

    def make(name, record):
        store = shutil.copytree(finished, tmp_path / "attempts" / name / "slide.zarr")
        write_record(store, record, {"patient": "A"})
        (store / name).touch()
        return store

    return make


def test_the_first_whole_store_of_a_row_wins(attempt_of, tmp_path):
    store = tmp_path / "slide.zarr"
    assert publish(attempt_of("one", FIRST), store)
    assert not publish(attempt_of("two", FIRST), store)
    assert (store / "one").exists()
    assert not (store / "two").exists()


def test_a_store_of_other_settings_is_replaced(attempt_of, tmp_path):
    store = tmp_path / "slide.zarr"
    publish(attempt_of("one", FIRST), store)
    assert publish(attempt_of("two", OTHER), store)
    assert (store / "two").exists()
    assert PreparedStore.read(store).record == OTHER


def test_a_store_without_its_last_attribute_is_not_whole(finished, tmp_path):
    store = shutil.copytree(finished, tmp_path / "attempt.zarr")
    assert PreparedStore.read(store) is None
    with pytest.raises(FileNotFoundError, match="is no whole store"):
        publish(store, tmp_path / "slide.zarr")
    write_record(store, FIRST, {})
    assert PreparedStore.read(store).record == FIRST
    del zarr.open_group(store, use_consolidated=False).attrs["stp_store"]
    assert PreparedStore.read(store) is None


def test_what_was_not_made_from_a_manifest_stays(attempt_of, tmp_path):
    store = tmp_path / "slide.zarr"
    store.mkdir()
    with pytest.raises(FileExistsError, match="was not made from a manifest"):
        publish(attempt_of("one", FIRST), store)
    assert store.is_dir()


def test_contents_decide_if_both_are_known():
    first = Record("times", "content", {})
    assert first.difference(Record("other times", "content", {})) is None
    assert first.difference(Record("times", "other", {})) == "the content of its source changed"
    assert first.difference(Record("times", None, {})) is None
    assert "path, size or time" in first.difference(Record("other times", None, {}))
    assert FIRST.difference(OTHER) == "bin_um was 8 and is 16"
