"""What every verb writes survives both file formats of AnnData, and SpatialData's."""

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata

from stp import get, pl, tl

OBSM = (
    "stp_tokens",
    "X_stp_genes",
    "X_stp_genes_aligned",
    "X_stp_images",
    "X_stp_images_aligned",
    "X_stp_fused",
)
OBS = ("stp_tokens_n", "X_stp_images_inside", "stp_expression_uniform")
UNS = ("stp_tokens", "X_stp_genes", "X_stp_images", "X_stp_fused", "stp_expression")


@pytest.fixture
def annotated(embedded):
    tl.fuse(embedded, scale=True)
    tl.predict_expression(embedded, embedded, genes=["ERBB2", "LUM"], n_neighbors=5)
    embedded.tables["table"].obsm["X_stp_genes"][3] = np.nan
    return embedded


def through_h5ad(sdata, path):
    sdata.tables["table"].write_h5ad(path / "table.h5ad")
    return anndata.read_h5ad(path / "table.h5ad")


def through_zarr(sdata, path):
    sdata.tables["table"].write_zarr(path / "table.zarr")
    return anndata.read_zarr(path / "table.zarr")


def through_spatialdata(sdata, path):
    sdata.write(path / "sdata.zarr")
    return spatialdata.read_zarr(path / "sdata.zarr").tables["table"]


def plain(value):
    """Reduce to types that compare: a file does not keep lists apart from arrays."""
    if isinstance(value, pd.DataFrame):
        return list(value), value.index.tolist(), value.to_numpy().tolist()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, np.ndarray | list) else value


@pytest.mark.parametrize("through", [through_h5ad, through_zarr, through_spatialdata])
def test_every_result_survives(annotated, through, tmp_path):
    before, after = annotated.tables["table"], through(annotated, tmp_path)
    for key in (*OBSM, "stp_expression"):
        np.testing.assert_array_equal(after.obsm[key], before.obsm[key])
        assert after.obsm[key].dtype == before.obsm[key].dtype, key
    for column in OBS:
        assert after.obs[column].dtype == before.obs[column].dtype, column
        assert after.obs[column].tolist() == before.obs[column].tolist()
    for key in UNS:
        assert plain(after.uns[key]) == plain(before.uns[key]), key


@pytest.mark.parametrize("through", [through_h5ad, through_zarr, through_spatialdata])
def test_what_was_read_back_is_used_as_before(annotated, stamp, through, tmp_path):
    """Tokens are still those of the model's vocabulary, genes still have names."""
    after = through(annotated, tmp_path)
    tl.embed_genes(after, stamp, key_added="again")
    np.testing.assert_allclose(
        after.obsm["again"][4:],
        annotated.tables["table"].obsm["X_stp_genes"][4:],
        rtol=1e-4,
        atol=1e-5,
    )
    assert list(get.expression(after).var_names) == ["ERBB2", "LUM"]
    plt.close(pl.expression(after, "LUM"))
