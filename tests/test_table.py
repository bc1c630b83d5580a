import anndata
import dask.array
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

from stp._table import begin, count_blocks, get_counts, get_table, log_normalized_blocks, record, require

COUNTS = np.random.default_rng(0).poisson(0.6, (23, 7)).astype(np.float32)


def unsorted(counts):
    """The same counts with columns in falling order and every value above 1 split into two entries."""
    rows = [
        [(j, part) for j in reversed(row.nonzero()[0]) for part in ((1, row[j] - 1) if row[j] > 1 else (1,))]
        for row in counts
    ]
    indptr = np.cumsum([0, *map(len, rows)])
    indices, data = (np.array(x) for x in zip(*(entry for row in rows for entry in row), strict=True))
    return sp.csr_matrix((data.astype(np.float32), indices, indptr), shape=counts.shape)


def with_zeros(counts):
    """The same counts with every zero stored."""
    matrix = sp.csr_matrix(np.ones_like(counts))
    matrix.data[:] = counts.ravel()
    return matrix


KINDS = {
    "csr": sp.csr_matrix,
    "csr array": sp.csr_array,
    "csc": sp.csc_matrix,
    "dense": np.asarray,
    "integers": lambda x: x.astype(np.int64),
    "dask": lambda x: dask.array.from_array(x, chunks=(5, 4)),
    "dask of csr": lambda x: dask.array.from_array(x, chunks=(5, 7)).map_blocks(sp.csr_matrix),
    "duplicates, unsorted": unsorted,
    "stored zeros": with_zeros,
}


def stack(blocks):
    return sp.vstack(list(blocks)).toarray()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [None, "counts"])
def test_count_blocks_are_canonical_csr_of_any_kind_of_counts(kind, layer):
    X = KINDS[kind](COUNTS)
    adata = anndata.AnnData(X) if layer is None else anndata.AnnData(COUNTS + 0.5, layers={layer: X})
    before = X.copy()
    blocks = list(count_blocks(adata, layer, block_rows=5))
    assert [block.shape[0] for block in blocks] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(stack(blocks), COUNTS)
    for block in blocks:
        assert block.format == "csr"
        assert (block.data > 0).all()
        assert all(
            (np.diff(block.indices[a:b]) > 0).all() for a, b in zip(block.indptr, block.indptr[1:], strict=False)
        )
    if sp.issparse(X):  # the user's own counts are left as they were
        np.testing.assert_array_equal(X.data, before.data)
        np.testing.assert_array_equal(X.indices, before.indices)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_count_blocks_read_a_backed_file(kind, tmp_path):
    anndata.AnnData(KINDS[kind](COUNTS)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert backed.isbacked
    np.testing.assert_array_equal(stack(count_blocks(backed, block_rows=5)), COUNTS)


def test_count_blocks_of_a_view():
    view = anndata.AnnData(sp.csr_matrix(COUNTS))[[3, 1, 20], [6, 0]]
    np.testing.assert_array_equal(stack(count_blocks(view)), COUNTS[[3, 1, 20]][:, [6, 0]])


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (np.log1p, "0.6931"),
        (lambda x: x / 2, "0.5"),
        (lambda x: np.where(x > 2, -x, x), "-3"),
        (lambda x: np.where(x > 2, np.nan, x), "nan"),
        (lambda x: np.where(x > 2, np.inf, x), "inf"),
    ],
    ids=["log1p", "halves", "negative", "nan", "infinite"],
)
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_what_is_no_count_is_refused_with_its_value(change, value, sparse):
    X = change(COUNTS).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(X) if sparse else X)
    with pytest.raises(ValueError, match=rf"X holds {value}, which is no raw count.*start from the raw counts"):
        get_counts(adata)


def test_the_refusal_names_the_layer_that_holds_counts():
    layers = {"scaled": COUNTS - COUNTS.mean(0), "raw": sp.csr_matrix(COUNTS)}
    adata = anndata.AnnData(np.log1p(COUNTS), layers=layers)
    with pytest.raises(ValueError, match="pass layer='raw'"):
        get_counts(adata)
    with pytest.raises(ValueError, match="layer 'scaled' holds .* pass layer='raw'"):
        get_counts(adata, "scaled")
    assert get_counts(adata, "raw") is adata.layers["raw"]


def test_a_wrong_value_in_a_later_block_is_found():
    X = np.ones((600, 2), np.float32)
    X[599, 1] = 1.5
    adata = anndata.AnnData(X)
    get_counts(adata)  # looks at the first rows only
    with pytest.raises(ValueError, match=r"X holds 1\.5"):
        list(count_blocks(adata, block_rows=100))


def test_missing_layer_and_missing_x():
    adata = anndata.AnnData(COUNTS, layers={"spliced": COUNTS})
    with pytest.raises(KeyError, match="no layer 'counts'; pass layer= one of .*spliced"):
        get_counts(adata, "counts")
    adata.X = None
    with pytest.raises(ValueError, match="no X; pass layer= one of .*spliced"):
        get_counts(adata)


def test_log_normalized_blocks():
    counts = np.array([[1, 3, 0], [0, 0, 0], [0, 0, 5]], np.float32)
    expected = [[np.log1p(2500), np.log1p(7500), 0], [0, 0, 0], [0, 0, np.log1p(10_000)]]
    np.testing.assert_allclose(stack(log_normalized_blocks(anndata.AnnData(counts))), expected, rtol=1e-6)


def test_get_table_of_each_kind(sdata, stores):
    assert get_table(sdata) is sdata.tables["table"]
    assert get_table(sdata.tables["table"], "ignored") is sdata.tables["table"]
    for path in (stores[0], str(stores[0])):
        table = get_table(path)
        assert table.obs_names.tolist() == sdata.tables["table"].obs_names.tolist()
        assert stack(count_blocks(table)).sum() == sdata.tables["table"].X.sum()


def test_a_table_on_disk_is_not_read_whole(stores):
    assert not sp.issparse(get_table(stores[0]).X)  # a dataset on disk, cut by rows


def test_an_unknown_table_key_lists_the_tables(sdata):
    with pytest.raises(KeyError, match=r"no table 'cells'.*\['table'\]"):
        get_table(sdata, "cells")


@pytest.mark.parametrize("data", [None, 3, np.ones((2, 2))], ids=["none", "number", "array"])
def test_get_table_refuses_other_types(data):
    with pytest.raises(TypeError, match=f"path of a store, got {type(data).__name__}"):
        get_table(data)


@pytest.mark.parametrize("kind", ["absent", "folder", "text", "h5ad", "zarr of AnnData", "zarr array", "other table"])
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
    with pytest.raises(
        ValueError, match=r"is not a SpatialData store with a table 'mine'; stp\.io\.write_store"
    ) as error:
        get_table(path, "mine")
    assert str(path) in str(error.value)


def test_begin_copies_only_if_asked(adata):
    assert begin(adata, "table", copy=False) is adata
    copied = begin(adata, "table", copy=True)
    assert copied is not adata
    assert copied.obs_names.equals(adata.obs_names)


def test_copy_of_a_backed_table_is_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"copy=True on a backed AnnData .*\.to_memory\(\)"):
        begin(backed, "table", copy=True)
    assert begin(backed, "table", copy=False) is backed


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
    assert adata.uns["stp"] == {"params": {"b": 2}}
