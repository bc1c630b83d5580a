"""Neighbors and clusters of many spots, with the packages that this one brings."""

import warnings

import anndata
import numpy as np
import pytest
import scanpy as sc

N_EXACT = 8192  # spots, of which scanpy still compares all pairs


@pytest.mark.parametrize("n_obs", [9_000, pytest.param(20_000, marks=pytest.mark.extended)])
def test_lines_of_the_readme_cluster_many_spots(n_obs):
    rng = np.random.default_rng(0)
    labels = np.arange(n_obs) % 4
    adata = anndata.AnnData(shape=(n_obs, 0))
    centers = 10 * np.eye(4, 32, dtype=np.float32)
    adata.obsm["X_stp_fused"] = centers[labels] + rng.standard_normal((n_obs, 32), np.float32)
    assert n_obs > N_EXACT
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="scanpy", category=FutureWarning)
        sc.pp.neighbors(adata, use_rep="X_stp_fused")
        sc.tl.leiden(adata, resolution=0.1, flavor="igraph", n_iterations=2, directed=False)
    # The labels lie far apart, so no cluster has spots of two of them.
    table = np.unique(np.stack([adata.obs["leiden"].to_numpy(int), labels]), axis=1)
    assert len(np.unique(table[0])) == table.shape[1]
    assert set(table[1]) == {0, 1, 2, 3}
