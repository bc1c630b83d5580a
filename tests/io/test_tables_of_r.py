"""Tables as R packages write them give the tokens and places of the counts, or are refused."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse

from stp import tl
from stp.io import from_anndata, write_store

COORDINATES = ("pxl_col_in_fullres", "pxl_row_in_fullres")


@pytest.fixture
def original(adata):
    """The shared slide with a cluster and a sample, as a Seurat object has them."""
    adata.obs["seurat_clusters"] = pd.Categorical(np.arange(100) % 3)
    adata.obs["orig.ident"] = pd.Categorical(["slice1"] * 100)
    return adata


@pytest.fixture
def normalized(original):
    values = original.copy()
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    return values.X


@pytest.fixture
def through_disk(tmp_path):
    """Return a function that writes a table as h5ad and reads it, as users do."""

    def write_and_read(table):
        table.write_h5ad(tmp_path / "table.h5ad")
        return anndata.read_h5ad(tmp_path / "table.h5ad")

    return write_and_read


@pytest.fixture
def is_right(original, vocabulary):
    """Return a function that compares a slide's tokens and places with the original's."""
    tl.tokenize(original, vocabulary, context_length=32)

    def compare(sdata, layer=None):
        tl.tokenize(sdata, vocabulary, layer=layer, context_length=32)
        tokens = sdata["table"].obsm["stp_tokens"]
        np.testing.assert_array_equal(tokens, original.obsm["stp_tokens"])
        places = np.column_stack([sdata["slide"].geometry.x, sdata["slide"].geometry.y])
        np.testing.assert_allclose(places, original.obsm["spatial"])
        return True

    return compare


def seurat_coordinates(adata):
    """Return the coordinates of a VisiumV1 image of Seurat; the row comes first."""
    x, y = adata.obsm["spatial"].T
    return pd.DataFrame({"imagerow": y, "imagecol": x}, index=adata.obs_names)


def seurat_disk(original, normalized):
    """SeuratDisk without scale.data: X is `data`, raw is `counts`, images are lost.

    Factors are numbers, and `raw.var` has a column `_index` that AnnData cannot write.
    """
    obs = pd.DataFrame(
        {"seurat_clusters": original.obs["seurat_clusters"].cat.codes.astype(int)},
        index=original.obs_names,
    )
    table = anndata.AnnData(normalized, obs=obs, var=original.var[[]])
    names = pd.DataFrame({"_index": original.var_names}, index=original.var_names)
    table.raw = anndata.AnnData(original.X, var=names)
    return table


def test_seurat_disk_has_the_counts_in_raw(original, normalized, image, vocabulary, is_right):
    table = seurat_disk(original, normalized)
    with pytest.raises(ValueError, match="not a raw count"):
        tl.tokenize(table, vocabulary)
    counts = table.raw.to_adata()
    del counts.var["_index"]
    coordinates = seurat_coordinates(original).sample(frac=1, random_state=0)  # read from a file
    coordinates = coordinates.loc[counts.obs_names]
    counts.obsm["spatial"] = coordinates[["imagecol", "imagerow"]].to_numpy()
    sdata = from_anndata(counts, image, um_per_px=1.0)
    assert is_right(sdata)
    clusters = original.obs["seurat_clusters"].cat.codes
    assert (sdata["table"].obs["seurat_clusters"] == clusters).all()


def test_seurat_disk_is_written_as_a_store(original, normalized, image, tmp_path, is_right):
    counts = seurat_disk(original, normalized).raw.to_adata()
    del counts.var["_index"]
    counts.obsm["spatial"] = original.obsm["spatial"]
    sdata = from_anndata(counts, image, um_per_px=1.0)
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    assert is_right(sdata)


def test_seurat_disk_with_scaled_data_has_no_counts(original, normalized, vocabulary, through_disk):
    scaled = normalized.toarray()[:, :20] - 1.0
    table = anndata.AnnData(scaled, obs=original.obs[[]], var=original.var[[]].iloc[:20])
    table.raw = anndata.AnnData(normalized, var=original.var[[]])
    table = through_disk(table)
    for candidate in (table, table.raw.to_adata()):
        with pytest.raises(ValueError, match="not a raw count"):
            tl.tokenize(candidate, vocabulary)


def test_sceasy_with_counts_as_a_layer(original, normalized, image, through_disk, is_right):
    """`transfer_layers="counts"`; columns of `meta.data` with one value are dropped."""
    obs = original.obs[["seurat_clusters"]].join(seurat_coordinates(original))
    layers = {"counts": original.X}
    table = anndata.AnnData(normalized, obs=obs, var=original.var[[]], layers=layers)
    table.obsm["X_pca"] = np.zeros((100, 2))
    table = through_disk(table)
    table.obsm["spatial"] = table.obs[["imagecol", "imagerow"]].to_numpy()
    assert is_right(from_anndata(table, image, um_per_px=1.0), layer="counts")


def test_sceasy_without_counts_is_refused(original, normalized, vocabulary, through_disk):
    table = through_disk(anndata.AnnData(normalized, obs=original.obs, var=original.var[[]]))
    with pytest.raises(ValueError, match="X contains .* not a raw count"):
        tl.tokenize(table, vocabulary)


def test_sceasy_with_counts_as_main_layer(original, image, through_disk, is_right):
    table = anndata.AnnData(original.X, obs=original.obs, var=original.var[[]])
    table.obsm["X_spatial"] = original.obsm["spatial"]  # a reduction that the user made
    sdata = from_anndata(through_disk(table), image, um_per_px=1.0, spatial_key="X_spatial")
    assert is_right(sdata)


def test_zellkonverter_of_a_spatial_experiment(original, normalized, image, through_disk, is_right):
    """spatialCoords become a DataFrame in `obsm["spatial"]`; the first assay is X."""
    x, y = original.obsm["spatial"].T
    table = anndata.AnnData(original.X, obs=original.obs, var=original.var[[]])
    table.layers["logcounts"] = normalized
    table.uns["X_name"] = "counts"
    coordinates = dict(zip(COORDINATES, (x, y), strict=True))
    table.obsm["spatial"] = pd.DataFrame(coordinates, index=table.obs_names)
    assert is_right(from_anndata(through_disk(table), image, um_per_px=1.0))


def test_zellkonverter_of_a_single_cell_experiment(
    original, normalized, image, vocabulary, through_disk, is_right
):
    """Its first assay is log counts, and the coordinates are in colData."""
    x, y = original.obsm["spatial"].T
    obs = original.obs.assign(**dict(zip(COORDINATES, (x, y), strict=True)))
    table = anndata.AnnData(normalized, obs=obs, var=original.var[[]])
    table.layers["counts"] = original.X
    table.uns["X_name"] = "logcounts"
    table = through_disk(table)
    with pytest.raises(ValueError, match="pass layer='counts'"):
        tl.tokenize(table, vocabulary)
    table.obsm["spatial"] = table.obs[list(COORDINATES)].to_numpy()
    assert is_right(from_anndata(table, image, um_per_px=1.0), layer="counts")


def test_anndata_r_has_no_X(original, normalized, image, tmp_path, through_disk, is_right):
    """By default all layers of a Seurat object are layers, and X is empty."""
    table = anndata.AnnData(obs=original.obs, var=original.var[[]])
    table.layers["counts"] = scipy.sparse.csr_matrix(original.X)
    table.layers["data"] = normalized
    table = through_disk(table)
    assert table.X is None
    table.obsm["spatial"] = seurat_coordinates(original)[["imagecol", "imagerow"]].to_numpy()
    sdata = from_anndata(table, image, um_per_px=1.0)
    assert is_right(sdata, layer="counts")
    write_store(sdata, tmp_path / "a.zarr", layer="counts", patch_um_per_px=4.0)


def test_anndata_r_without_a_layer_is_refused(original, vocabulary, through_disk):
    table = anndata.AnnData(obs=original.obs, var=original.var[[]])
    table.layers["counts"] = original.X
    with pytest.raises((ValueError, KeyError), match="layer"):
        tl.tokenize(through_disk(table), vocabulary)


def test_a_table_that_schard_reads(original, image, through_disk, is_right):
    """schard reads `uns["spatial"][library]` into R and writes no h5ad."""
    scalefactors = {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 65.0}
    images = {"hires": image[::2, ::2]}
    original.uns["spatial"] = {"library": {"images": images, "scalefactors": scalefactors}}
    original.obs["library_id"] = pd.Categorical(["library"] * 100)
    original.raw = original.copy()
    sdata = from_anndata(through_disk(original), image, um_per_px=1.0)
    assert is_right(sdata)
    assert list(sdata["table"].uns["spatial"]) == ["library"]
