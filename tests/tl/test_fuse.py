import tracemalloc

import anndata
import numpy as np
import pytest

from stp import tl


@pytest.fixture
def table(adata, record_model):
    rng = np.random.default_rng(0)
    adata.obsm["X_stp_genes"] = rng.normal(size=(100, 4)).astype(np.float32)
    adata.obsm["X_stp_images"] = 50 * rng.normal(size=(100, 6)).astype(np.float32)
    adata.obsm["X_stp_genes"][3] = np.nan
    record_model(adata, "X_stp_genes", "X_stp_images")
    return adata


def test_fuse_concatenates(table):
    assert tl.fuse(table) is None
    fused = table.obsm["X_stp_fused"]
    expected = np.hstack([table.obsm["X_stp_genes"], table.obsm["X_stp_images"]])
    expected[3] = np.nan
    np.testing.assert_array_equal(fused, expected)
    assert fused.dtype == np.float32
    assert table.uns["X_stp_fused"]["params"] == {
        "use_reps": ["X_stp_genes", "X_stp_images"],
        "scale": False,
    }


def test_scale_gives_each_block_a_mean_norm_of_one(table):
    tl.fuse(table, scale=True)
    fused = table.obsm["X_stp_fused"]
    for block, name in ((fused[:, :4], "X_stp_genes"), (fused[:, 4:], "X_stp_images")):
        embedding = table.obsm[name]
        expected = embedding / np.nanmean(np.linalg.norm(embedding, axis=1))
        np.testing.assert_allclose(np.delete(block, 3, 0), np.delete(expected, 3, 0), rtol=1e-5)
    assert table.uns["X_stp_fused"]["params"]["scale"] is True


def test_spots_without_genes_stay_nan(table):
    tl.fuse(table)
    assert np.flatnonzero(np.isnan(table.obsm["X_stp_fused"]).all(axis=1)).tolist() == [3]


def test_reps_and_key_are_those_given(table):
    table.obsm["X_pca"] = np.ones((100, 2))
    tl.fuse(table, use_reps=["X_pca", "X_stp_images", "X_pca"], key_added="mine")
    assert table.obsm["mine"].shape == (100, 10)
    np.testing.assert_array_equal(table.obsm["mine"][:, [0, 1, 8, 9]], 1)
    assert "X_stp_fused" not in table.obsm


def test_one_rep_may_be_given_as_it_is(table):
    tl.fuse(table, use_reps="X_stp_genes")
    np.testing.assert_array_equal(table.obsm["X_stp_fused"], table.obsm["X_stp_genes"])


def test_copy_leaves_the_original(table):
    result = tl.fuse(table, copy=True)
    assert (
        "X_stp_fused" in result.obsm
        and "X_stp_fused" not in table.obsm
        and "X_stp_fused" not in table.uns
    )


def test_spatialdata_is_annotated_in_its_table(embedded):
    copied = tl.fuse(embedded, copy=True)
    tl.fuse(embedded)
    obsm = embedded.tables["table"].obsm
    np.testing.assert_array_equal(
        obsm["X_stp_fused"], np.hstack([obsm["X_stp_genes"], obsm["X_stp_images"]])
    )
    np.testing.assert_array_equal(copied.obsm["X_stp_fused"], obsm["X_stp_fused"])


@pytest.mark.parametrize(
    ("missing", "call"), [("genes", r"embed_genes\(adata, model\)"), ("images", "embed_images")]
)
def test_a_missing_embedding_names_the_call(table, missing, call):
    del table.obsm[f"X_stp_{missing}"]
    with pytest.raises(
        KeyError, match=rf"obsm\['X_stp_{missing}'\] is missing; run stp\.tl\.{call}"
    ):
        tl.fuse(table)


def test_memory_is_that_of_the_result_and_a_block(record_model):
    table = anndata.AnnData(obs={"n": np.zeros(40_000)})
    for key in ("X_stp_genes", "X_stp_images"):
        table.obsm[key] = np.ones((40_000, 128), np.float32)
    record_model(table, "X_stp_genes", "X_stp_images")
    tracemalloc.start()
    tl.fuse(table, scale=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * table.obsm["X_stp_fused"].nbytes
