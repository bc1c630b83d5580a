"""Tables of collections on servers: stores are relative to the URL, and tokens are not shown."""

import pandas as pd
import pytest
from tests.servers import Server

from stp.data.collection import Collection
from stp.io import read_collection

TOKEN = "hidden"


@pytest.fixture
def table():
    names = ["C1", "D1", "E1"]
    paths = ["C1.zarr", "D1/1/D1.zarr", "s3://bucket/E1.zarr"]
    return pd.DataFrame({"name": names, "path": paths, "digest": ["a", "b", "c"]})


def test_stores_of_a_web_server_are_relative_to_the_table(table, cache, tmp_path):
    folder = tmp_path / "stores"
    folder.mkdir()
    table.to_csv(folder / "collection.csv", index=False)
    table.assign(name="C1").to_csv(folder / "twice.csv", index=False)
    server = Server(tmp_path / "requests", folder).start(TOKEN=TOKEN)
    address = f"http://{server.host}"
    try:
        for path in (f"{address}?token={TOKEN}", f"{address}/collection.csv?token={TOKEN}"):
            collection = read_collection(path)
            assert list(collection) == [
                f"{address}/C1.zarr?token={TOKEN}",
                f"{address}/D1/1/D1.zarr?token={TOKEN}",
                "s3://bucket/E1.zarr",
            ]
        with pytest.raises(FileNotFoundError, match=f"no collection at {address}/other.csv;"):
            read_collection(f"{address}/other.csv?token={TOKEN}")
        with pytest.raises(ValueError, match=f"{address}/twice.csv is no collection: several"):
            read_collection(f"{address}/twice.csv?token={TOKEN}")
        with pytest.raises(ValueError, match=f"relative to {address}; write it there") as error:
            collection.write(tmp_path / "collection.csv")
        with pytest.raises(PermissionError, match="is on a web server"):
            collection.write(f"{address}/collection.csv?token={TOKEN}")
    finally:
        server.kill()
    assert TOKEN not in str(error.value) + repr(collection)


def test_a_table_is_written_next_to_its_stores(table, cache, tmp_path):
    url = f"memory://{tmp_path.name}"
    collection = Collection(table, url)
    collection.write(url)
    again = read_collection(url)
    assert again.table.equals(collection.table)
    assert list(again) == [f"{url}/C1.zarr", f"{url}/D1/1/D1.zarr", "s3://bucket/E1.zarr"]
    with pytest.raises(ValueError, match=f"relative to {url}; write it there, not to memory://a"):
        collection.write("memory://a/collection.csv")
    part = again.select({"name": ["C1", "D1"]})
    with pytest.raises(ValueError, match="a selection of 2 of the 3 stores of memory://"):
        part.write(f"{url}/collection.csv")
    part.write(f"{url}/part.parquet")
    assert read_collection(f"{url}/part.csv").digest == part.digest
    assert len(read_collection(f"{url}/collection.csv")) == 3
