"""Embeddings whose rows are not finite are refused by all that read them."""

import numpy as np
import pytest
import torch

from stp import tl, train
from stp.models import ExpressionHead, ExpressionHeadConfig

REPS = ("X_stp_images", "X_stp_genes", "X_stp_images_aligned", "X_stp_genes_aligned")


@pytest.fixture
def table(adata, stamp, record_model):
    rng = np.random.default_rng(0)
    for rep in REPS:
        adata.obsm[rep] = rng.normal(size=(100, 32)).astype(np.float32)
    record_model(adata, "X_stp_images", "X_stp_genes", digest=stamp.digest)
    adata.obs["group"] = np.repeat(["a", "b"], 50)
    adata.obs["cluster"] = np.tile(["x", "y"], 50)
    return adata


@pytest.fixture
def calls(stamp, tmp_path):
    """Return the calls that read these features of a table, by name."""
    genes = ["EPCAM", "LUM"]
    images = "X_stp_images"
    head = ExpressionHead(ExpressionHeadConfig(32, tuple(genes), "", features_of=stamp.digest))

    def fit_head(table):
        train.fit_expression_head(
            table, tmp_path / "head", genes=genes, config=train.RegressionConfig(epochs=1)
        )

    def adapt(table):
        train.adapt(table, tmp_path / "adapt", model=stamp, config=train.AdaptConfig(epochs=1))

    def regress(table, reference):
        tl.regress_expression(table, reference, genes=genes)

    def predict(table, reference):
        tl.predict_expression(
            table, reference, genes=genes, use_rep=images, reference_rep=images, n_neighbors=5
        )

    return {
        "fuse": tl.fuse,
        "linear_probe": lambda table: tl.linear_probe(table, "group", use_rep=images),
        "linear_probe_paper": lambda table: tl.linear_probe_paper(
            table, "group", use_rep=images, learning_rate=0.1
        ),
        "score_clusters": lambda table: tl.score_clusters(
            table, "group", "cluster", use_rep=images
        ),
        "score_retrieval": lambda table: tl.score_retrieval(
            table, use_rep=images, reference_rep="X_stp_genes"
        ),
        "score_retrieval of genes": lambda table: tl.score_retrieval(
            table, use_rep="X_stp_genes", reference_rep=images
        ),
        "batch_effect": lambda table: tl.batch_effect(table, "group", use_reps=[images]),
        "apply_expression_head": lambda table: tl.apply_expression_head(table, head),
        "regress_expression": lambda table: regress(table, finite(table)),
        "regress_expression from": lambda table: regress(finite(table), table),
        "predict_expression": lambda table: predict(table, finite(table)),
        "predict_expression from": lambda table: predict(finite(table), table),
        "fit_expression_head": fit_head,
        "adapt": adapt,
    }


def finite(table):
    """Return a copy without the spots that lack finite image features."""
    is_finite = np.isfinite(table.obsm["X_stp_images"]).all(axis=1)
    return table[is_finite].copy()


@pytest.mark.parametrize(
    "name",
    [
        "fuse",
        "linear_probe",
        "linear_probe_paper",
        "score_clusters",
        "score_retrieval",
        "score_retrieval of genes",
        "batch_effect",
        "apply_expression_head",
        "regress_expression",
        "regress_expression from",
        "predict_expression",
        "predict_expression from",
        "fit_expression_head",
        "adapt",
    ],
)
def test_rows_that_are_infinite_or_partly_nan_are_refused(name, calls, table):
    table.obsm["X_stp_images"][[7, 40], 3] = (np.inf, np.nan)
    message = r"obsm\['X_stp_images'\].* has infinite values, or NaN in a part .* in row 7, 40;"
    with pytest.raises(ValueError, match=message):
        calls[name](table)
    assert not {"X_stp_fused", "stp_expression"} & {*table.obsm, *table.uns}
    # Spots without features are left out, and the rest is used.
    table.obsm["X_stp_images"][[7, 40]] = np.nan
    calls[name](table)


def test_a_prediction_that_is_not_finite_is_not_scored(table):
    tl.regress_expression(table, table, genes=["EPCAM", "LUM"])
    table.obsm["stp_expression"][5, 1] = np.inf
    with pytest.raises(ValueError, match=r"obsm\['stp_expression'\] has infinite .* in row 5;"):
        tl.score_expression(table, table, n_genes=1)


def test_a_head_that_predicts_nan_writes_nothing(table, stamp):
    head = ExpressionHead(ExpressionHeadConfig(32, ("EPCAM",), "", features_of=stamp.digest))
    with torch.no_grad():
        next(head.parameters()).fill_(np.nan)
    table.obsm["X_stp_images"][0] = np.nan
    with pytest.raises(ValueError, match="predictions that ExpressionHead computed .* in row 1, 2"):
        tl.apply_expression_head(table, head)
    assert "stp_expression" not in table.obsm


def test_a_fused_spot_that_lacks_one_embedding_is_nan(table):
    table.obsm["X_stp_genes"][3] = np.nan
    tl.fuse(table)
    fused = table.obsm["X_stp_fused"]
    assert np.isnan(fused[3]).all()
    assert np.isfinite(np.delete(fused, 3, axis=0)).all()
