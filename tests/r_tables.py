"""Tables laid out as converters of Seurat and SingleCellExperiment write them."""

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse

PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]


def normalize(adata: anndata.AnnData) -> scipy.sparse.csr_matrix:
    """Return log-normalized counts, which Seurat calls `data`."""
    values = anndata.AnnData(adata.X.copy(), var=adata.var[[]])
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    return values.X


def seurat_coordinates(adata: anndata.AnnData) -> pd.DataFrame:
    """Return the coordinates of a Visium image in Seurat 3 and 4; the row comes first."""
    x, y = adata.obsm["spatial"].T
    return pd.DataFrame({"imagerow": y, "imagecol": x}, index=adata.obs_names)


def meta_data(adata: anndata.AnnData) -> pd.DataFrame:
    """Return `meta.data` of a Seurat object."""
    umis = np.asarray(adata.X.sum(axis=1)).ravel()
    columns = {"nCount_Spatial": umis, "seurat_clusters": np.arange(adata.n_obs) % 3}
    return pd.DataFrame(columns, index=adata.obs_names)


def seurat_disk(adata: anndata.AnnData) -> anndata.AnnData:
    """Return what SeuratDisk writes of an object without scale.data.

    X is `data`, raw is `counts`, factors are numbers, and coordinates are lost. SeuratDisk also
    writes a column `_index` into `raw.var`, which AnnData reads but cannot write.
    """
    table = anndata.AnnData(normalize(adata), obs=meta_data(adata), var=adata.var[[]])
    table.raw = anndata.AnnData(adata.X, var=adata.var[[]])
    return table


def scaled_seurat_disk(adata: anndata.AnnData, n_variable: int = 20) -> anndata.AnnData:
    """Return what SeuratDisk writes of an object with scale.data of its variable features.

    X is `scale.data`, raw is `data`, and the counts are lost.
    """
    values = normalize(adata)
    scaled = sc.pp.scale(values.toarray())[:, :n_variable]
    table = anndata.AnnData(scaled, obs=meta_data(adata), var=adata.var[[]].iloc[:n_variable])
    table.raw = anndata.AnnData(values, var=adata.var[[]])
    return table


def sceasy(adata: anndata.AnnData) -> anndata.AnnData:
    """Return what sceasy writes with `transfer_layers="counts"`.

    The user put the coordinates into `meta.data` before.
    """
    obs = meta_data(adata).join(seurat_coordinates(adata))
    table = anndata.AnnData(normalize(adata), obs=obs, var=adata.var[[]])
    table.layers["counts"] = adata.X
    table.obsm["X_pca"] = np.zeros((adata.n_obs, 2))
    return table


def spatial_experiment(adata: anndata.AnnData) -> anndata.AnnData:
    """Return what zellkonverter writes of a SpatialExperiment: coordinates are a DataFrame."""
    table = anndata.AnnData(adata.X, obs=meta_data(adata), var=adata.var[[]])
    table.layers["logcounts"] = normalize(adata)
    table.uns["X_name"] = "counts"
    table.obsm["spatial"] = pixel_columns(adata)
    return table


def single_cell_experiment(adata: anndata.AnnData) -> anndata.AnnData:
    """Return what zellkonverter writes if log counts are the first assay.

    The coordinates are columns of colData.
    """
    obs = meta_data(adata).join(pixel_columns(adata))
    table = anndata.AnnData(normalize(adata), obs=obs, var=adata.var[[]])
    table.layers["counts"] = adata.X
    table.uns["X_name"] = "logcounts"
    return table


def anndata_r(adata: anndata.AnnData) -> anndata.AnnData:
    """Return what anndataR writes by default: all layers of Seurat as layers, and no X."""
    table = anndata.AnnData(obs=meta_data(adata), var=adata.var[[]])
    table.layers["counts"] = adata.X
    table.layers["data"] = normalize(adata)
    return table


def pixel_columns(adata: anndata.AnnData) -> pd.DataFrame:
    """Return the centers of the spots as columns named by Space Ranger."""
    return pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names, columns=PIXELS)
