import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata._core.validation import check_valid_name
from spatialdata.models import TableModel

from stp.tables.valid_names import make_storable, unique_names, valid_name


def table(obs=None, names="abc"):
    obs = pd.DataFrame(obs or {}, index=list(names))
    return anndata.AnnData(np.ones((len(names), 2), np.float32), obs=obs)


def write_and_read(adata, folder):
    """Make a table storable with one warning or none, write it, and read it."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        make_storable(adata)
    ours = [str(m.message) for m in messages if issubclass(m.category, UserWarning)]
    spatialdata.SpatialData(tables={"table": TableModel.parse(adata)}).write(folder / "a.zarr")
    return spatialdata.read_zarr(folder / "a.zarr")["table"], ours


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b", "a_b"),
        ("Cell type (%)", "Cell_type"),
        ("Sample 1", "Sample_1"),
        ("_private", "_private"),
        ("__double", "double"),
        ("a.b-c_", "a.b-c_"),
        ("", "unnamed"),
        (" ", "unnamed"),
        (".", "unnamed"),
        ("..", "unnamed"),
        ("%", "unnamed"),
        ("größe µm", "größe_µm"),
        ("e\u0301", "é"),
        ("細胞", "細胞"),
        (7, "7"),
        ("a\tb\n", "a_b"),
    ],
)
def test_names_change_only_where_spatialdata_needs_it(name, expected):
    assert valid_name(name) == expected
    check_valid_name(valid_name(name))


def test_new_names_differ_from_all_others():
    names = ["a b", "a_b", "A_B", "a/b", "", "%", "x", "X"]
    expected = ["a_b_1", "a_b", "A_B_2", "a_b_3", "unnamed", "unnamed_1", "x", "X_1"]
    assert unique_names(names) == expected
    assert unique_names(["Spatial", "spatial"]) == ["Spatial_1", "spatial"]
    assert unique_names(["table"], reserved=["Table"]) == ["table_1"]


def test_columns_are_renamed_and_no_value_is_lost(tmp_path):
    columns = ["a/b", "a_b", "Cell type (%)", "_index", "Array_row", "array_row", "stp region"]
    adata = table({name: [number] * 3 for number, name in enumerate(columns)})
    back, (message,) = write_and_read(adata, tmp_path)
    assert back.obs.iloc[0].to_dict() == {
        "a_b_1": 0,
        "a_b": 1,
        "Cell_type": 2,
        "index": 3,
        "Array_row_1": 4,
        "array_row": 5,
        "stp_region_1": 6,
    }
    assert "obs['a/b'] to 'a_b_1', obs['Cell type (%)'] to 'Cell_type'" in message
    assert "obs['_index'] to 'index'" in message


def test_valid_tables_do_not_change(tmp_path):
    adata = table({"a": [1, 2, 3], "label": ["x", "y", "x"]})
    adata.uns["lists"] = {"a b": [1, 2]}
    back, messages = write_and_read(adata, tmp_path)
    assert messages == []
    assert list(back.obs) == ["a", "label"]
    assert list(back.uns["lists"]) == ["a b"]


def test_repeated_columns_and_columns_that_are_numbers_are_renamed(tmp_path):
    adata = table()
    adata.obs = pd.DataFrame([[1, 2, 3]] * 3, index=adata.obs_names, columns=["x", "x", 5])
    back, _ = write_and_read(adata, tmp_path)
    assert back.obs.iloc[0].to_dict() == {"x": 1, "x_1": 2, "5": 3}


def test_the_name_of_the_index_is_no_column(tmp_path):
    adata = table({"barcode": [1, 2, 3]})
    adata.obs.index.name = "barcode"
    adata.var.index.name = "gene/id"
    back, _ = write_and_read(adata, tmp_path)
    assert back.obs["barcode"].tolist() == [1, 2, 3]
    assert (back.obs.index.name, back.var.index.name) == ("barcode_1", "gene_id")
    assert back.obs_names.tolist() == ["a", "b", "c"]


def test_keys_of_all_slots_are_renamed(tmp_path):
    adata = table({"Cell type": ["x", "y", "x"]})
    adata.var["gene/symbol"] = ["g", "h"]
    adata.obsm["X pca"] = np.arange(6.0).reshape(3, 2)
    adata.obsm["X_PCA"] = np.zeros((3, 1))
    adata.varm["load/ings"] = np.ones((2, 1))
    adata.obsp["a b"] = np.eye(3)
    adata.layers["raw counts"] = np.full((3, 2), 7.0)
    adata.uns["Cell type_colors"] = ["red", "blue"]
    adata.uns["log1p "] = {"a/b": {"c/d": 1}, "e f": 2}
    adata.obsm["scores"] = pd.DataFrame({"B/T": [1, 2, 3], "B T": [4, 5, 6]}, index=list("abc"))
    back, (message,) = write_and_read(adata, tmp_path)
    assert back.var["gene_symbol"].tolist() == ["g", "h"]
    np.testing.assert_array_equal(back.obsm["X_pca_1"], np.arange(6.0).reshape(3, 2))
    assert "obsm['X pca'] to 'X_pca_1'" in message
    assert back.varm["load_ings"].shape == (2, 1)
    np.testing.assert_array_equal(back.obsp["a_b"], np.eye(3))
    assert (back.layers["raw_counts"] == 7).all()
    assert list(back.uns["Cell_type_colors"]) == ["red", "blue"]
    assert back.uns["log1p"] == {"a_b": {"c_d": 1}, "e f": 2}
    assert back.obsm["scores"].loc["a"].to_dict() == {"B_T": 1, "B T": 4}


def test_columns_of_raw_are_renamed(tmp_path):
    adata = table()
    adata.var["a/b"] = [1, 2]
    adata.raw = adata
    original = adata.raw.var
    copy = adata.copy()
    back, _ = write_and_read(copy, tmp_path)
    assert back.raw.var["a_b"].tolist() == [1, 2]
    assert list(original) == ["a/b"]


def test_lists_become_text(tmp_path):
    values = [["CD3D", "CD3E"], None, []]
    adata = table({"markers": values, "array": [np.arange(2), None, np.arange(3)]})
    back, (message,) = write_and_read(adata, tmp_path)
    assert back.obs["markers"].tolist() == ["CD3D, CD3E", np.nan, ""]
    assert back.obs["array"].tolist() == ["0, 1", np.nan, "0, 1, 2"]
    assert "obs['markers'], obs['array']" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x", None, "y"], ["x", np.nan, "y"]),
        (pd.array(["x", None, "y"], dtype="string"), ["x", np.nan, "y"]),
        ([1, "x", None], ["1", "x", np.nan]),
        ([True, None, False], [True, pd.NA, False]),
        (np.array([1, 2, None], object), [1, 2, pd.NA]),
        ([None] * 3, [np.nan] * 3),
        (pd.to_datetime(["2020-01-02", None, "2021-01-02"]), ["2020-01-02", np.nan, "2021-01-02"]),
        (pd.period_range("2020-01", periods=3, freq="M"), ["2020-01", "2020-02", "2020-03"]),
        ([b"x", b"y", b"z"], ["x", "y", "z"]),
    ],
)
def test_values_that_zarr_would_change_or_refuse_are_kept(values, expected, tmp_path):
    adata = table()
    adata.obs["column"] = values
    back, _ = write_and_read(adata, tmp_path)
    column = back.obs["column"]
    assert column.isna().tolist() == pd.isna(expected).tolist()
    is_present = ~pd.isna(expected)
    found = [str(value)[:10] for value in column[is_present]]
    assert found == [str(value) for value in np.array(expected, object)[is_present]]
