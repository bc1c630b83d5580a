import anndata
import numpy as np
import pytest
import scanpy as sc

from stp import get


@pytest.fixture
def predicted(adata):
    """A table with two predictions."""
    rng = np.random.default_rng(0)
    for key, genes in {"stp_expression": ["LUM", "ERBB2", "NEW"], "mine": ["CD3E"]}.items():
        adata.obsm[key] = rng.random((100, len(genes))).astype(np.float32)
        adata.uns[key] = {
            "params": {},
            "genes": np.array(genes, dtype=object),
            "units": f"units of {key}",
        }
    adata.obs["domain"] = "a"
    return adata


def test_expression_is_a_table_of_all_spots_and_predicted_genes(predicted):
    table = get.expression(predicted)
    assert isinstance(table, anndata.AnnData)
    np.testing.assert_array_equal(table.X, predicted.obsm["stp_expression"])
    assert table.X.dtype == np.float32
    assert list(table.var_names) == ["LUM", "ERBB2", "NEW"]
    assert table.obs.equals(predicted.obs)
    assert set(table.obsm) == {"spatial"}
    np.testing.assert_array_equal(table.obsm["spatial"], predicted.obsm["spatial"])
    assert table.uns == {"units": "units of stp_expression"}


def test_key_chooses_the_prediction(predicted):
    table = get.expression(predicted, key="mine")
    assert list(table.var_names) == ["CD3E"]
    assert table.uns["units"] == "units of mine"


def test_flags_of_the_prediction_are_in_obs(predicted):
    flags = np.arange(100) % 7 == 0
    predicted.obs["mine_far"] = flags
    predicted.obs["mine_uniform"] = ~flags
    obs = get.expression(predicted, key="mine").obs
    np.testing.assert_array_equal(obs["mine_far"], flags)
    np.testing.assert_array_equal(obs["mine_uniform"], ~flags)


def test_the_table_of_a_spatialdata(predicted, sdata):
    sdata.tables["table"] = predicted
    assert get.expression(sdata).to_df().equals(get.expression(predicted).to_df())
    with pytest.raises(KeyError, match=r"no table 'cells'.*pass table_key= one of \['table'\]"):
        get.expression(sdata, table_key="cells")


def test_coordinates_may_be_absent(predicted):
    del predicted.obsm["spatial"]
    assert not get.expression(predicted).obsm


def test_the_table_is_its_own(predicted):
    """Tools of scanpy change X in place; the results they came from must stay."""
    before = predicted.copy()
    table = get.expression(predicted)
    sc.pp.scale(table)
    table.obsm["spatial"] += 1
    table.obs["domain"] = "b"
    np.testing.assert_array_equal(predicted.obsm["stp_expression"], before.obsm["stp_expression"])
    np.testing.assert_array_equal(predicted.obsm["spatial"], before.obsm["spatial"])
    assert predicted.obs.equals(before.obs)


@pytest.mark.parametrize("slot", ["obsm", "uns"])
def test_a_missing_prediction_names_the_call(predicted, slot):
    del getattr(predicted, slot)["stp_expression"]
    call = r"stp\.tl\.predict_expression\(adata, reference\)"
    message = rf"{slot}\['stp_expression'\] is missing; run {call} first"
    with pytest.raises(KeyError, match=message):
        get.expression(predicted)


def test_genes_have_ids_symbols_and_whether_the_query_measures_them(predicted):
    """The query has symbols; LUM is found by its id, and NEW is no gene of the query."""
    predicted.uns["stp_expression"]["genes"] = ["LUM", "ENSG00000141736", "NEW"]
    predicted.uns["stp_expression"]["gene_ids"] = ["ENSG00000139329", "ENSG00000141736", ""]
    var = get.expression(predicted).var
    assert var.index.tolist() == ["LUM", "ENSG00000141736", "NEW"]
    assert var["gene_id"].tolist() == ["ENSG00000139329", "ENSG00000141736", ""]
    assert var["symbol"].tolist() == ["LUM", "", "NEW"]
    assert var["is_measured"].tolist() == [True, True, False]
