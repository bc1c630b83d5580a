import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import stp
from stp.tables.counts import count_blocks
from stp.tables.table import (
    as_list,
    get_table,
    get_tables,
    record,
    require,
    table_to_annotate,
)

COUNTS = np.random.default_rng(0).poisson(0.6, (23, 7)).astype(np.float32)


def test_get_table_of_each_kind(sdata, stores):
    assert get_table(sdata) is sdata.tables["table"]
    assert get_table(sdata.tables["table"], "ignored") is sdata.tables["table"]
    for path in (stores[0], str(stores[0])):
        table = get_table(path)
        assert table.obs_names.tolist() == sdata.tables["table"].obs_names.tolist()
        assert sum(block.sum() for block in count_blocks(table)) == sdata.tables["table"].X.sum()


def test_a_table_on_disk_is_not_read_whole(stores):
    assert not sp.issparse(get_table(stores[0]).X)  # a dataset on disk, cut by rows


def test_a_table_on_disk_may_have_its_counts_in_a_layer(sdata, tmp_path):
    table = sdata.tables["table"]
    table.layers["counts"], table.X = table.X, None
    sdata.write(tmp_path / "a.zarr")
    opened = get_table(tmp_path / "a.zarr")
    assert (
        sum(block.sum() for block in count_blocks(opened, "counts")) == table.layers["counts"].sum()
    )
    with pytest.raises(ValueError, match=r"the table has no X; pass layer= one of \['counts'\]"):
        next(count_blocks(opened))


def test_an_unknown_table_key_lists_the_tables(sdata):
    with pytest.raises(KeyError, match=r"no table 'cells'.*\['table'\]"):
        get_table(sdata, "cells")


@pytest.mark.parametrize("data", [None, 3, np.ones((2, 2))], ids=["none", "number", "array"])
def test_get_table_refuses_other_types(data):
    with pytest.raises(TypeError, match=f"path of a store, got {type(data).__name__}"):
        get_table(data)


@pytest.mark.parametrize(
    "kind", ["absent", "folder", "text", "h5ad", "zarr of AnnData", "zarr array", "other table"]
)
def test_a_path_that_is_no_store(kind, tmp_path, stores):
    path, adata = tmp_path / "x", anndata.AnnData(COUNTS)
    make = {
        "absent": lambda: None,
        "folder": path.mkdir,
        "text": lambda: path.write_text("counts"),
        "h5ad": lambda: adata.write_h5ad(path),
        "zarr of AnnData": lambda: adata.write_zarr(path),
        "zarr array": lambda: zarr.create_array(str(path), data=COUNTS),
        "other table": lambda: path.symlink_to(stores[0]),
    }
    make[kind]()
    message = r"is not a SpatialData store with a table 'mine'; stp\.io\.write_store"
    if kind == "absent":
        message = "there is no store at .*; check the path"
    with pytest.raises(ValueError, match=message) as error:
        get_table(path, "mine")
    assert str(path) in str(error.value)


def test_the_table_to_annotate_is_a_copy_only_with_copy_true(adata):
    assert table_to_annotate(adata, "table", copy=False) is adata
    copied = table_to_annotate(adata, "table", copy=True)
    assert copied is not adata
    assert copied.obs_names.equals(adata.obs_names)


def test_copy_of_a_backed_table_is_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"copy=True on a backed AnnData .*\.to_memory\(\)"):
        table_to_annotate(backed, "table", copy=True)
    assert table_to_annotate(backed, "table", copy=False) is backed


@pytest.mark.parametrize(
    "names", ["EPCAM", ["EPCAM"], ("EPCAM",), pd.Index(["EPCAM"]), np.array(["EPCAM"])]
)
def test_one_name_is_a_list_of_one(names):
    assert as_list(names) == ["EPCAM"]


def test_require_names_the_call(adata):
    with pytest.raises(KeyError, match=r"adata\.obsm\['x'\] is missing; run stp\.make first"):
        require(adata, "obsm", "x", "stp.make")
    assert require(adata, "obsm", "spatial", "stp.make") is adata.obsm["spatial"]


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_record_survives_the_disk(ending, tmp_path):
    params = {
        "nothing": None,
        "flag": True,
        "number": np.float32(0.5),
        "path": tmp_path,
        "names": ["a", "b"],
        "numbers": (1, 2),
        "empty": [],
        "regions": {"slide": {"um": 0.5, "image": None, "keys": ["x"]}, "none": {}},
    }
    adata = anndata.AnnData(COUNTS)
    record(adata, "stp", params, genes=np.array(["A", "B"], object), units="log1p")
    path = tmp_path / f"a.{ending}"
    getattr(adata, f"write_{ending}")(path)
    back = getattr(anndata, f"read_{ending}")(path).uns["stp"]

    assert back["units"] == "log1p"
    assert list(back["genes"]) == ["A", "B"]
    back = back["params"]
    assert set(back) == set(params)
    assert back["nothing"] is None
    assert bool(back["flag"]) is True
    assert (back["number"], back["path"]) == (0.5, str(tmp_path))
    assert [list(back[key]) for key in ("names", "numbers", "empty")] == [["a", "b"], [1, 2], []]
    assert back["regions"]["none"] == {}
    slide = back["regions"]["slide"]
    assert (slide["um"], slide["image"], list(slide["keys"])) == (0.5, None, ["x"])


def test_a_record_replaces_the_one_before(adata):
    record(adata, "stp", {"a": 1}, extra=2)
    record(adata, "stp", {"b": 2})
    assert adata.uns["stp"] == {"params": {"b": 2}, "version": stp.__version__}


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_record_keeps_dataframes(ending, tmp_path):
    frame = pd.DataFrame(
        {"rule": ["symbol", "alias"], "umis": [0.5, 0.25]}, index=pd.Index(["A", "B"], name="gene")
    )
    adata = anndata.AnnData(COUNTS)
    record(adata, "stp", {}, rules=frame, none=frame[:0])
    assert adata.uns["stp"]["rules"] is frame
    path = tmp_path / f"a.{ending}"
    getattr(adata, f"write_{ending}")(path)
    back = getattr(anndata, f"read_{ending}")(path).uns["stp"]
    pd.testing.assert_frame_equal(back["rules"], frame, check_dtype=False, check_index_type=False)
    assert back["none"].empty
    assert list(back["none"]) == ["rule", "umis"]


def test_get_tables_labels_one_or_several(adata, sdata, stores, tmp_path):
    shape = "100 spots x 32 genes"
    assert [label for label, _ in get_tables(adata)] == [shape]
    assert [label for label, _ in get_tables([adata, sdata, stores[0], str(stores[1])])] == [
        shape,
        shape,
        "slide0.zarr",
        "slide1.zarr",
    ]
    adata.write_h5ad(tmp_path / "mine.h5ad")
    backed = anndata.read_h5ad(tmp_path / "mine.h5ad", backed="r")
    assert [(label, table is backed) for label, table in get_tables(backed)] == [
        ("mine.h5ad", True)
    ]


def test_get_tables_opens_one_at_a_time(adata):
    opened = []

    def data():
        for i in range(3):
            opened.append(i)
            yield adata

    tables = get_tables(data())
    for i in range(3):
        next(tables)
        assert opened == list(range(i + 1))


@pytest.mark.parametrize("copy", [False, True])
def test_results_are_not_lost_in_a_table_that_a_path_names(stores, copy):
    with pytest.raises(TypeError, match="is a path; open it with spatialdata.read_zarr"):
        stp.tl.fuse(stores[0], copy=copy)
