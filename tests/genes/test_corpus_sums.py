import pandas as pd
import pytest
from distributed import Client, LocalCluster

import stp
from stp.data.store import SpotStore


@pytest.fixture(scope="module")
def clients():
    """Return a client of two worker processes, and one of a thread of this process."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as processes,
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as thread,
        Client(processes) as first,
        Client(thread) as second,
    ):
        yield first, second


def test_workers_give_the_same_vocabulary_to_the_last_bit(clients, stores, tmp_path):
    whole = stp.Vocabulary.default().fit(stores)
    merged = stp.Vocabulary.merge([stp.Vocabulary.default().fit(store) for store in stores[::-1]])
    assert merged.digest == whole.digest
    for client in clients:
        fitted = stp.Vocabulary.default().fit(stores, client=client)
        assert fitted.digest == whole.digest
        assert fitted.n_detected.tobytes() == whole.n_detected.tobytes()
        assert fitted.corpus == whole.corpus
        fitted.save(tmp_path / "fitted.parquet")
        whole.save(tmp_path / "whole.parquet")
        assert (tmp_path / "fitted.parquet").read_bytes() == (
            tmp_path / "whole.parquet"
        ).read_bytes()


def test_workers_read_paths_alone(clients, adata, stores):
    with pytest.raises(TypeError, match="must be paths of stores, which workers read, not AnnData"):
        stp.Vocabulary.default().fit([stores[0], adata], client=clients[1])


def test_an_error_of_a_worker_is_raised(clients, stores, tmp_path):
    with pytest.raises(ValueError, match=r"there is no store at .*gone\.zarr"):
        stp.Vocabulary.default().fit([*stores, tmp_path / "gone.zarr"], client=clients[1])


def test_stores_of_a_collection_are_checked_before_work(stores, tmp_path):
    table = pd.DataFrame(
        {
            "name": ["a", "b"],
            "path": [str(path) for path in stores[:2]],
            "digest": [SpotStore(path).digest for path in stores[:2]],
            "problem": ["", "few genes"],
        }
    )
    collection = stp.io.Collection(table, tmp_path)
    with pytest.warns(UserWarning, match="1 of 2 stores are left out"):
        fitted = stp.Vocabulary.default().fit(collection)
    assert fitted.digest == stp.Vocabulary.default().fit(stores[0]).digest
    assert fitted.collection == {"digest": collection.digest, "where": {}, "n_stores": 1}
    assert stp.Vocabulary.merge([fitted]).collection is None
    collection.table.loc[0, "digest"] = "0" * 64
    collection.table["problem"] = ""
    with pytest.raises(ValueError, match="a was written anew"):
        stp.Vocabulary.default().fit(collection)
