import shutil
from multiprocessing.reduction import ForkingPickler

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr

from stp import Vocabulary
from stp.data.store import SpotStore
from stp.io import write_store


@pytest.fixture
def store(stores):
    return SpotStore(stores[0])


def test_a_store_gives_what_was_written(store, adata, image):
    assert store.name == "slide0"
    assert len(store) == adata.n_obs
    default = Vocabulary.default()
    ids = default.gene_ids[default.encode(adata.var_names)]
    assert sorted(store.gene_names) == sorted(ids)
    np.testing.assert_allclose(store.coordinates, adata.obsm["spatial"])  # at 1 µm per pixel
    assert store.pyramid.um_per_px == 4.0
    height, width = image.shape[:2]
    shape = [-(-n // 12) * 3 for n in (height, width)]  # whole pixels at 12 µm
    assert [level.shape for level in store.pyramid.levels] == [
        tuple(shape),
        tuple(n // 3 for n in shape),
    ]


def test_the_patches_of_a_store_show_the_spots(store, adata, image):
    patches = store.pyramid.read(store.coordinates, size=8, um_per_px=4.0)
    for patch, (x, y) in zip(patches, adata.obsm["spatial"].astype(int), strict=True):
        around = image[y - 16 : y + 16, x - 16 : x + 16].mean(axis=(0, 1))
        np.testing.assert_allclose(patch.mean(axis=(0, 1)), around, atol=3)
    assert patches.mean(axis=(1, 2)).std(axis=0)[:2].min() > 20


def test_trainable_spots_are_in_tissue_and_rich(adata, tmp_path):
    counts = np.zeros((4, 5), np.float32)
    for row, n_genes in enumerate([5, 3, 2, 0]):
        counts[row, :n_genes] = 7
    small = anndata.AnnData(scipy.sparse.csr_matrix(counts))
    small.var_names = ["ACTB", "ERBB2", "EPCAM", "KRT8", "VIM"]
    write_store(small, tmp_path / "all.zarr")
    small.obs["in_tissue"] = [0, 1, 1, 1]
    write_store(small, tmp_path / "some.zarr")
    assert [SpotStore(tmp_path / "all.zarr").trainable(n).tolist() for n in (0, 3, 6)] == [
        [0, 1, 2, 3],
        [0, 1],
        [],
    ]
    assert [SpotStore(tmp_path / "some.zarr").trainable(n).tolist() for n in (0, 3, 6)] == [
        [1, 2, 3],
        [1],
        [],
    ]


@pytest.mark.parametrize("kind", ["category", "boolean", "Int64", "float32", "str"])
def test_tissue_is_read_from_a_column_of_any_type(kind, tmp_path):
    small = anndata.AnnData(scipy.sparse.csr_matrix(np.full((3, 2), 7, np.float32)))
    small.var_names = ["ACTB", "ERBB2"]
    inside = pd.Series([0, 1, 1], small.obs_names)
    small.obs["in_tissue"] = (
        inside.astype(str).astype(kind) if kind in ("category", "str") else inside.astype(kind)
    )
    write_store(small, tmp_path / "slide.zarr")
    assert SpotStore(tmp_path / "slide.zarr").trainable(1).tolist() == [1, 2]


def test_a_column_of_other_values_than_0_and_1_is_refused(tmp_path):
    small = anndata.AnnData(scipy.sparse.csr_matrix(np.full((2, 2), 7, np.float32)))
    small.var_names = ["ACTB", "ERBB2"]
    small.obs["in_tissue"] = ["tumor", "1"]
    write_store(small, tmp_path / "slide.zarr")
    with pytest.raises(
        ValueError,
        match=r"obs\['in_tissue'\] of .*slide.zarr contains 'tumor', which is neither 0 nor 1",
    ):
        SpotStore(tmp_path / "slide.zarr").trainable(1)


def test_the_digest_of_the_genes_tells_stores_apart(store, stores, adata, tmp_path):
    write_store(adata[:, 1:].copy(), tmp_path / "fewer.zarr")
    assert store.genes == SpotStore(stores[1]).genes != SpotStore(tmp_path / "fewer.zarr").genes
    group = zarr.open_group(
        shutil.copytree(stores[0], tmp_path / "old.zarr"), use_consolidated=False
    )
    group.attrs["stp_store"] = {
        name: value for name, value in group.attrs["stp_store"].items() if name != "genes"
    }
    assert (
        SpotStore(tmp_path / "old.zarr").genes == store.genes
    )  # computed for a store without a digest


def test_a_store_is_pickled_as_its_path(store):
    pickled = ForkingPickler.dumps(store)  # as workers receive it
    assert len(pickled) < 3000
    there = ForkingPickler.loads(pickled)
    assert (len(there), there.genes) == (len(store), store.genes)
    np.testing.assert_array_equal(there.coordinates, store.coordinates)


def test_a_store_of_counts_alone(tmp_path):
    adata = anndata.AnnData(np.ones((3, 2), np.float32))
    adata.var_names = ["ACTB", "ERBB2"]
    write_store(adata, tmp_path / "counts.zarr")
    store = SpotStore(str(tmp_path / "counts.zarr"))
    assert (len(store), store.coordinates, store.pyramid) == (3, None, None)


def make_anything(kind, path, stores):
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("counts")
    elif kind == "zarr array":
        zarr.create_array(str(path), data=np.ones(3))
    elif kind == "AnnData":
        anndata.AnnData(np.ones((3, 2))).write_zarr(path)
    elif kind != "absent":
        shutil.copytree(stores[0], path)
        attrs = zarr.open_group(path, mode="r+").attrs
        attrs["stp_store"] = (
            {} if kind == "other SpatialData" else {**attrs["stp_store"], "version": 99}
        )


@pytest.mark.parametrize(
    "kind",
    ["absent", "folder", "text", "zarr array", "AnnData", "other SpatialData", "other version"],
)
def test_a_folder_that_is_not_a_training_store_is_refused(kind, tmp_path, stores):
    path = tmp_path / "x.zarr"
    make_anything(kind, path, stores)
    message = r"is not a training store .*; stp\.io\.write_store makes one"
    if kind == "absent":
        message = "there is no store at .*; check the path"
    with pytest.raises(ValueError, match=message) as error:
        SpotStore(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("version", "lacks"), [(1, "the species"), (2, "a digest")])
def test_a_store_of_a_former_version_is_refused_with_the_call_that_rewrites_it(
    version, lacks, stores, tmp_path
):
    path = shutil.copytree(stores[0], tmp_path / "old.zarr")
    attrs = zarr.open_group(path, mode="r+", use_consolidated=False).attrs
    attrs["stp_store"] = {**attrs["stp_store"], "version": version}
    zarr.consolidate_metadata(path)
    with pytest.raises(
        ValueError,
        match=rf"old\.zarr is a store of version {version}, which does not record {lacks}.*"
        r"stp\.io\.write_store\(slide, path, overwrite=True\)",
    ):
        SpotStore(path)


def test_an_unknown_table_is_refused_by_name(stores):
    with pytest.raises(ValueError, match="not a training store with a table 'cells'"):
        SpotStore(stores[0], "cells")


def test_mapped_pixels_are_those_of_the_store_and_are_not_pickled(store, stores, tmp_path):
    store.write_pixels(tmp_path / "pixels")
    sizes = [file.stat().st_size for file in (tmp_path / "pixels").iterdir()]
    assert store.n_pixel_bytes < sum(sizes) < store.n_pixel_bytes + 200 * len(sizes)  # headers
    store.map_pixels(tmp_path / "pixels")
    unmapped = SpotStore(stores[0]).pyramid
    for level, other in zip(store.pyramid.levels, unmapped.levels, strict=True):
        assert isinstance(level.array, np.memmap)
        assert not isinstance(other.array, np.ndarray)  # without map_pixels
        np.testing.assert_array_equal(level.array, other.read(0, other.shape[0], 0, other.shape[1]))
    pickled = ForkingPickler.dumps(store)  # as workers receive it
    assert len(pickled) < store.n_pixel_bytes / 20
    levels = ForkingPickler.loads(pickled).pyramid.levels
    assert [type(level.array) for level in levels] == [np.memmap, np.memmap]
