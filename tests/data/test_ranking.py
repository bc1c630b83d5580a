import shutil
import subprocess
import sys

import numpy as np
import pytest

from stp.data.ranking import rank_stores
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes


@pytest.mark.parametrize("context_length", [5, 40])
@pytest.mark.parametrize("block_rows", [7, 4096])
def test_tokens_are_those_of_the_counts(
    stores, adata, vocabulary, context_length, block_rows, tmp_path
):
    opened = [SpotStore(path) for path in (stores[1], stores[0])]
    file = SpotFile(tmp_path / "tokens", [len(store) for store in opened], context_length)
    file.create()
    rank_stores(opened, vocabulary, file, block_rows=block_rows)
    index = vocabulary.encode(adata.var_names)
    table = rank_table(vocabulary.divisors())
    expected = rank_genes(adata.X, index, table, context_length=context_length, n_special=30)
    np.testing.assert_array_equal(file[1], expected.tokens)
    assert (file[0] != file[1]).mean() > 0.5


@pytest.mark.parametrize("damage", ["gone", "garbage"])
@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_damaged_store_is_named(stores, ranked, tmp_path, part, damage):
    path = shutil.copytree(stores[0], tmp_path / "damaged.zarr")
    (chunk,) = [
        file for file in (path / "tables/table/X" / part / "c").rglob("*") if file.is_file()
    ]
    if damage == "garbage":
        chunk.write_bytes(b"garbage")
    elif part == "data":
        chunk.unlink()
    else:
        shutil.rmtree(path / "tables/table/X" / part)
    with pytest.raises(
        ValueError, match=r"damaged\.zarr (cannot be read|has lost a part of its counts)"
    ):
        ranked([SpotStore(path)], 32)


def test_processes_share_the_work(stores, ranked, vocabulary, tmp_path):
    opened = [SpotStore(path) for path in stores]
    whole = ranked(opened, 16)
    file = SpotFile(tmp_path / "shared", [len(store) for store in opened], 16)
    file.create()
    rank_stores(opened, vocabulary, file, rank=1, size=2)
    assert [bool(file[number].any()) for number in range(3)] == [False, True, False]
    rank_stores(opened, vocabulary, file, rank=0, size=2)
    np.testing.assert_array_equal(file.array, whole.array)


def test_stores_are_read_with_zarr_alone(stores, vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.parquet")
    code = f"""
import sys
from pathlib import Path
from stp.data.store import SpotStore
from stp.data.ranking import rank_stores
from stp.data.spot_file import SpotFile
from stp.genes.vocabulary import Vocabulary
store = SpotStore({str(stores[0])!r})
file = SpotFile(Path({str(tmp_path)!r}) / "tokens", [len(store)], 8)
file.create()
rank_stores([store], Vocabulary.load({str(tmp_path / "vocabulary.parquet")!r}), file)
store.pyramid.read(store.coordinates[:2], size=8, um_per_px=4.0)
print({{"anndata", "spatialdata", "dask", "pandas"}} & set(sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
