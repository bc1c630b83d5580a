import anndata
import numpy as np
import pandas as pd
import pytest

from stp import metrics, tl


@pytest.fixture
def clustered():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", ""], [40, 40, 20])
    clusters = pd.Categorical(np.where(np.arange(100) % 50 < 25, "0", "1"))
    obs = pd.DataFrame({"label": labels, "leiden": clusters}, index=[str(i) for i in range(100)])
    return anndata.AnnData(
        np.zeros((100, 1), np.float32), obs=obs, obsm={"X_stp_fused": rng.normal(size=(100, 4))}
    )


def test_clusters_are_scored_where_there_are_labels(clustered, tmp_path):
    clustered.obsm["X_stp_fused"][3] = np.nan
    tl.score_clusters(clustered, "label", "leiden")
    rows = np.setdiff1d(np.arange(80), [3])
    labels, clusters = (clustered.obs[name].to_numpy()[rows] for name in ("label", "leiden"))
    expected = metrics.clustering_scores(labels, clusters)
    expected |= metrics.separation_scores(clustered.obsm["X_stp_fused"][rows], clusters)
    details = clustered.uns["stp_cluster_scores"]
    assert details["scores"] == expected
    assert len(expected) == 6 and details["n_spots"] == 79
    clustered.write_h5ad(tmp_path / "a.h5ad")
    assert anndata.read_h5ad(tmp_path / "a.h5ad").uns["stp_cluster_scores"][
        "scores"
    ] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.obs.pop("leiden"), KeyError, r"run sc\.tl\.leiden\(adata\) first"),
        (lambda a: a.obsm.pop("X_stp_fused"), KeyError, r"run stp\.tl\.fuse\(adata\) first"),
        (lambda a: a.obs.__setitem__("label", "a"), ValueError, "all labels are 'a'"),
        (lambda a: a.obs.__setitem__("label", ""), ValueError, "no spot has a label and a cluster"),
    ],
)
def test_clusters_without_labels_or_features_are_refused(clustered, change, error, message):
    change(clustered)
    with pytest.raises(error, match=message):
        tl.score_clusters(clustered, "label", "leiden")


@pytest.fixture
def predicted(adata):
    """A prediction that equals the measured values for two genes, and their negative for one."""
    counts = adata.X.toarray()
    profiles = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    columns = adata.var_names.get_indexer(["LUM", "ERBB2", "RPL3"])
    adata.obsm["stp_expression"] = profiles[:, columns] * [-1, 1, 1]
    adata.obsm["stp_expression"][7] = np.nan
    adata.uns["stp_expression"] = {
        "genes": np.array(["LUM", "ERBB2", "RPL3"], dtype=object),
        "params": {},
    }
    return adata, profiles[:, columns]


def test_expression_is_scored_on_genes_of_the_reference(predicted, tmp_path):
    adata, measured = predicted
    tl.score_expression(adata, adata.copy(), n_genes=2)
    details = adata.uns["stp_expression_scores"]
    genes = details["genes"]
    np.testing.assert_allclose(genes["pearson"], [-1, 1, 1], rtol=1e-5)
    order = {"variable": measured.var(axis=0), "expressed": measured.mean(axis=0)}
    for name, values in order.items():
        assert set(np.flatnonzero(genes[name])) == set(np.argsort(-values)[:2])
    assert details["scores"]["PCC-V"] == pytest.approx(genes["pearson"][genes["variable"]].mean())
    assert details["n_spots"] == 99
    adata.write_h5ad(tmp_path / "a.h5ad")


def test_expression_without_measured_genes_is_refused(predicted):
    adata, _ = predicted
    reference = adata[:, adata.var_names != "LUM"].copy()
    with pytest.raises(
        KeyError, match=r"1 predicted genes are not measured in reference 0, e\.g\. \['LUM'\]"
    ):
        tl.score_expression(adata, reference)
    adata.obsm["stp_expression"][:] = np.nan
    with pytest.raises(ValueError, match="no spot has a prediction"):
        tl.score_expression(adata, reference)


def test_several_references_are_one(predicted, tmp_path):
    adata, _ = predicted
    other = adata[::-1].copy()
    other.X = other.X.multiply(np.arange(1, 33)).tocsr()
    tl.score_expression(adata, [adata.copy(), other], n_genes=1, key_added="parts")
    tl.score_expression(adata, anndata.concat([adata, other], index_unique="-"), n_genes=1)
    pd.testing.assert_frame_equal(
        *(adata.uns[key]["genes"] for key in ("parts", "stp_expression_scores"))
    )


def test_a_prediction_in_other_units_is_not_scored(predicted):
    adata, _ = predicted
    adata.uns["stp_expression"]["units"] = "layer 'scaled'"
    with pytest.raises(
        ValueError, match="predicted is layer 'scaled', scores are of log1p of counts per 10,000"
    ):
        tl.score_expression(adata, adata.copy())


@pytest.mark.parametrize("label", ["adata", "reference 0"])
def test_genes_of_one_name_are_not_scored(predicted, label):
    adata, _ = predicted
    reference = adata.copy()
    table = adata if label == "adata" else reference
    table.var_names = [*table.var_names[:-1], "DCN"]
    with pytest.raises(
        ValueError, match=rf"gene names of {label} are not unique, e\.g\. \['DCN'\]; call its var_"
    ):
        tl.score_expression(adata, reference)


def test_retrieval_is_scored_with_its_chance():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0].astype(np.float32)
    adata = anndata.AnnData(np.zeros((20, 1), np.float32))
    adata.obsm["X_stp_images_aligned"] = vectors.copy()
    adata.obsm["X_stp_genes_aligned"] = vectors.copy()
    adata.obsm["X_stp_genes_aligned"][5] = np.nan
    tl.score_retrieval(adata)
    details = adata.uns["stp_retrieval_scores"]
    assert details["n_spots"] == 19
    assert details["scores"]["recall@1"] == 1.0
    assert details["scores"]["chance@5"] == 5 / 19
    adata.obsm["X_stp_images_aligned"][:] = np.nan
    with pytest.raises(ValueError, match="no spot has both"):
        tl.score_retrieval(adata)
    with pytest.raises(KeyError, match=r"obsm\['other'\] is missing"):
        tl.score_retrieval(adata, use_rep="other")
