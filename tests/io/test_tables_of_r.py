"""Tables as R packages write them give the tokens and places of the counts, or are refused."""

import anndata
import numpy as np
import pandas as pd
import pytest
from tests import r_tables

from stp import tl
from stp.io import from_anndata, read_visium, write_store


@pytest.fixture
def through_disk(tmp_path):
    """Return a function that writes a table as h5ad and reads it, as users do."""

    def write_and_read(table):
        table.write_h5ad(tmp_path / "table.h5ad")
        return anndata.read_h5ad(tmp_path / "table.h5ad")

    return write_and_read


@pytest.fixture
def is_right(adata, vocabulary):
    """Return a function that compares a slide's tokens and places with those of the counts."""
    tl.tokenize(adata, vocabulary, context_length=32)

    def compare(sdata, layer=None):
        tl.tokenize(sdata, vocabulary, layer=layer, context_length=32)
        tokens = sdata["table"].obsm["stp_tokens"]
        np.testing.assert_array_equal(tokens, adata.obsm["stp_tokens"])
        places = np.column_stack([sdata["slide"].geometry.x, sdata["slide"].geometry.y])
        np.testing.assert_allclose(places, adata.obsm["spatial"])
        return True

    return compare


def add_coordinates(table, coordinates):
    """Add coordinates by the name of the spot, as from a file in another order."""
    shuffled = coordinates.sample(frac=1, random_state=0)
    in_order = shuffled.reindex(table.obs_names)
    table.obsm["spatial"] = in_order[["imagecol", "imagerow"]].to_numpy()


def test_seurat_disk_has_the_counts_in_raw(adata, image, vocabulary, through_disk, is_right):
    table = through_disk(r_tables.seurat_disk(adata))
    with pytest.raises(ValueError, match="not a raw count"):
        tl.tokenize(table, vocabulary)
    counts = table.raw.to_adata()
    add_coordinates(counts, r_tables.seurat_coordinates(adata))
    sdata = from_anndata(counts, image, um_per_px=1.0)
    assert is_right(sdata)
    assert sdata["table"].obs["seurat_clusters"].tolist() == (np.arange(100) % 3).tolist()


def test_seurat_disk_is_written_as_a_store(adata, image, tmp_path, is_right):
    counts = r_tables.seurat_disk(adata).raw.to_adata()
    counts.obsm["spatial"] = adata.obsm["spatial"]
    sdata = from_anndata(counts, image, um_per_px=1.0)
    write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    assert is_right(sdata)


def test_seurat_disk_with_scaled_data_has_no_counts(adata, vocabulary, through_disk):
    table = through_disk(r_tables.scaled_seurat_disk(adata))
    for candidate in (table, table.raw.to_adata()):
        with pytest.raises(ValueError, match="not a raw count"):
            tl.tokenize(candidate, vocabulary)


def test_sceasy_with_counts_as_a_layer(adata, image, through_disk, is_right):
    table = through_disk(r_tables.sceasy(adata))
    table.obsm["spatial"] = table.obs[["imagecol", "imagerow"]].to_numpy()
    assert is_right(from_anndata(table, image, um_per_px=1.0), layer="counts")


def test_sceasy_without_counts_is_refused(adata, vocabulary, through_disk):
    table = r_tables.sceasy(adata)
    del table.layers["counts"]
    with pytest.raises(ValueError, match="X contains .* not a raw count"):
        tl.tokenize(through_disk(table), vocabulary)


def test_sceasy_with_counts_as_main_layer(adata, image, through_disk, is_right):
    table = anndata.AnnData(adata.X, obs=r_tables.meta_data(adata), var=adata.var[[]])
    table.obsm["X_spatial"] = adata.obsm["spatial"]  # a reduction that the user made
    sdata = from_anndata(through_disk(table), image, um_per_px=1.0, spatial_key="X_spatial")
    assert is_right(sdata)


def test_zellkonverter_of_a_spatial_experiment(adata, image, through_disk, is_right):
    table = through_disk(r_tables.spatial_experiment(adata))
    assert isinstance(table.obsm["spatial"], pd.DataFrame)
    assert is_right(from_anndata(table, image, um_per_px=1.0))


def test_zellkonverter_of_a_single_cell_experiment(
    adata, image, vocabulary, through_disk, is_right
):
    table = through_disk(r_tables.single_cell_experiment(adata))
    with pytest.raises(ValueError, match="pass layer='counts'"):
        tl.tokenize(table, vocabulary)
    table.obsm["spatial"] = table.obs[r_tables.PIXELS].to_numpy()
    assert is_right(from_anndata(table, image, um_per_px=1.0), layer="counts")


def test_anndata_r_has_no_X(adata, image, tmp_path, through_disk, is_right):
    table = through_disk(r_tables.anndata_r(adata))
    assert table.X is None
    add_coordinates(table, r_tables.seurat_coordinates(adata))
    sdata = from_anndata(table, image, um_per_px=1.0)
    assert is_right(sdata, layer="counts")
    write_store(sdata, tmp_path / "a.zarr", layer="counts", patch_um_per_px=4.0)


def test_anndata_r_without_a_layer_is_refused(adata, vocabulary, through_disk):
    with pytest.raises((ValueError, KeyError), match="layer"):
        tl.tokenize(through_disk(r_tables.anndata_r(adata)), vocabulary)


def test_a_table_that_schard_reads(adata, image, through_disk, is_right):
    """schard reads `uns["spatial"][library]` into R and writes no h5ad."""
    scalefactors = {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 65.0}
    images = {"hires": image[::2, ::2]}
    adata.uns["spatial"] = {"library": {"images": images, "scalefactors": scalefactors}}
    adata.obs["library_id"] = pd.Categorical(["library"] * 100)
    adata.raw = adata.copy()
    sdata = from_anndata(through_disk(adata), image, um_per_px=1.0)
    assert is_right(sdata)
    assert list(sdata["table"].uns["spatial"]) == ["library"]


def test_labels_of_seurat_are_joined_by_barcode(space_ranger, adata, tmp_path):
    labels = r_tables.meta_data(adata).sample(frac=1, random_state=0)
    labels.to_csv(tmp_path / "meta_data.csv")
    table = read_visium(space_ranger)["table"]
    labels = pd.read_csv(tmp_path / "meta_data.csv", index_col=0).reindex(table.obs_names)
    assert labels["seurat_clusters"].tolist() == (np.arange(100) % 3).tolist()
    umis = np.asarray(table.X.sum(axis=1)).ravel()
    np.testing.assert_array_equal(labels["nCount_Spatial"], umis)
