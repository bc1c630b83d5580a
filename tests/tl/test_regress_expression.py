import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from stp import get, tl
from stp.models import ExpressionHead, ExpressionHeadConfig


@pytest.fixture
def reference(adata, record_model):
    """Features from which expression can be predicted."""
    normal = sc.pp.log1p(
        sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True
    ).X.toarray()
    rng = np.random.default_rng(0)
    adata.obsm["X_stp_images"] = (normal[:, :12] @ rng.normal(size=(12, 20))).astype(np.float32)
    record_model(adata, "X_stp_images")
    return adata


@pytest.fixture
def query(reference, record_model):
    table = anndata.AnnData(obs={"n": np.arange(30)})
    table.obsm["X_stp_images"] = reference.obsm["X_stp_images"][:30].copy()
    record_model(table, "X_stp_images")
    return table


def test_it_is_ridge_on_standardized_principal_components(query, reference):
    genes = ["LUM", "ERBB2"]
    assert tl.regress_expression(query, reference, genes=genes, alpha=3.0, n_components=5) is None
    normal = sc.pp.log1p(sc.pp.normalize_total(reference, target_sum=1e4, copy=True), copy=True)
    scaler = StandardScaler().fit(reference.obsm["X_stp_images"])
    pca = PCA(5).fit(scaler.transform(reference.obsm["X_stp_images"]))
    train, test = (
        pca.transform(scaler.transform(a.obsm["X_stp_images"])) for a in (reference, query)
    )
    expected = Ridge(3.0).fit(train, normal[:, genes].X.toarray()).predict(test)
    np.testing.assert_allclose(query.obsm["stp_expression"], expected, rtol=1e-3, atol=1e-3)
    assert list(get.expression(query).var_names) == genes
    assert not get.expression(query).layers
    assert query.uns["stp_expression"]["units"] == "log1p of counts per 10,000"


def test_several_references_are_one(query, reference):
    tl.regress_expression(query, reference, genes=["LUM"])
    parts = [reference[:40].copy(), reference[40:].copy()]
    tl.regress_expression(query, parts, genes=["LUM"], key_added="parts")
    np.testing.assert_allclose(
        query.obsm["parts"], query.obsm["stp_expression"], rtol=1e-3, atol=1e-3
    )


def test_spots_without_features_are_nan_and_not_used_for_training(query, reference):
    query.obsm["X_stp_images"][3] = np.nan
    reference.obsm["X_stp_images"][50:] = np.nan
    tl.regress_expression(query, reference, genes=["LUM"])
    assert np.flatnonzero(np.isnan(query.obsm["stp_expression"][:, 0])).tolist() == [3]
    tl.regress_expression(query, reference[:50].copy(), genes=["LUM"], key_added="half")
    np.testing.assert_allclose(query.obsm["half"], query.obsm["stp_expression"], rtol=1e-4)


@pytest.mark.parametrize("genes", [None, "LUM", ["LUM"], pd.Index(["LUM"]), np.array(["LUM"])])
def test_genes_are_recorded_however_they_are_named(query, reference, genes, tmp_path):
    reference.var["highly_variable"] = reference.var_names == "LUM"
    tl.regress_expression(query, reference, genes=genes)
    query.write_h5ad(tmp_path / "query.h5ad")
    assert get.expression(sc.read_h5ad(tmp_path / "query.h5ad")).var_names.tolist() == ["LUM"]


@pytest.mark.parametrize("verb", ["regress", "apply"])
def test_results_of_an_earlier_retrieval_are_deleted(query, reference, verb):
    images = {"use_rep": "X_stp_images", "reference_rep": "X_stp_images"}
    tl.predict_expression(query, reference, genes=["LUM"], **images)
    assert len(query.obsm) == 5 and len(query.obs.columns) == 3
    if verb == "regress":
        tl.regress_expression(query, reference, genes=["LUM"])
    else:
        tl.apply_expression_head(
            query, ExpressionHead(ExpressionHeadConfig(20, ("LUM",), "", "0" * 64))
        )
    assert {*query.obsm} == {"X_stp_images", "stp_expression"} and {*query.obs} == {"n"}
    assert not get.expression(query).layers


def test_bad_input(query, reference):
    with pytest.raises(KeyError, match=r"marks no highly variable genes .*; pass genes="):
        tl.regress_expression(query, reference)
    narrow = reference.copy()
    narrow.obsm["X_stp_images"] = narrow.obsm["X_stp_images"][:, :7]
    with pytest.raises(
        ValueError, match=r"has 20 columns, obsm\['X_stp_images'\] of the reference \{7\}"
    ):
        tl.regress_expression(query, narrow, genes=["LUM"])
    query.obsm["X_stp_images"][:] = np.nan
    with pytest.raises(ValueError, match=r"no spot of the table has obsm\['X_stp_images'\]"):
        tl.regress_expression(query, reference, genes=["LUM"])
    assert "stp_expression" not in query.obsm
