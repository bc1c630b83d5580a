import shutil
import subprocess
import sys

import anndata
import numpy as np
import pytest
import scipy.sparse
import torch
import zarr

from stp import Vocabulary
from stp._keys import MASK_ID, PAD_ID
from stp._ranks import rank_table
from stp.data.dataset import Picks, SpotStore, TokenDataset
from stp.io import write_store
from stp.tokens import rank_genes


@pytest.fixture
def store(stores):
    return SpotStore(stores[0])


def test_a_store_gives_what_was_written(store, adata, image):
    assert store.name == "slide0"
    assert len(store) == adata.n_obs
    default = Vocabulary.default()
    ids = default.gene_ids[default.encode(adata.var_names)]
    assert sorted(store.gene_names) == sorted(ids)
    np.testing.assert_allclose(store.coordinates, adata.obsm["spatial"])  # at 1 um per pixel
    assert store.pyramid.um_per_px == 4.0
    height, width = image.shape[:2]
    shape = [-(-n // 12) * 3 for n in (height, width)]  # whole pixels at 12 um
    assert [level.shape for level in store.pyramid.levels] == [tuple(shape), tuple(n // 3 for n in shape)]


def test_the_patches_of_a_store_show_the_spots(store, adata, image):
    patches = store.pyramid.read(store.coordinates, size=8, um_per_px=4.0)
    for patch, (x, y) in zip(patches, adata.obsm["spatial"].astype(int), strict=True):
        around = image[y - 16 : y + 16, x - 16 : x + 16].mean(axis=(0, 1))
        np.testing.assert_allclose(patch.mean(axis=(0, 1)), around, atol=3)
    assert patches.mean(axis=(1, 2)).std(axis=0)[:2].min() > 20


@pytest.mark.parametrize("context_length", [5, 40])
@pytest.mark.parametrize("block_rows", [7, 4096])
def test_tokens_are_those_of_the_counts(store, adata, vocabulary, context_length, block_rows, monkeypatch):
    monkeypatch.setattr("stp.data.dataset.BLOCK_ROWS", block_rows)
    index, table = vocabulary.encode(adata.var_names), rank_table(vocabulary.divisors())
    expected = rank_genes(adata.X, index, table, context_length=context_length, n_special=30)
    np.testing.assert_array_equal(store.tokens(vocabulary, context_length), expected.tokens)


@pytest.mark.parametrize("damage", ["gone", "garbage"])
@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_damaged_store_is_named(stores, vocabulary, tmp_path, part, damage):
    path = shutil.copytree(stores[0], tmp_path / "damaged.zarr")
    (chunk,) = [file for file in (path / "tables/table/X" / part / "c").rglob("*") if file.is_file()]
    if damage == "garbage":
        chunk.write_bytes(b"garbage")
    elif part == "data":
        chunk.unlink()
    else:
        shutil.rmtree(path / "tables/table/X" / part)
    with pytest.raises(ValueError, match=r"damaged\.zarr (cannot be read|has lost a part of its counts)"):
        SpotStore(path).tokens(vocabulary, 32)


def test_trainable_spots_are_in_tissue_and_rich(adata, tmp_path):
    counts = np.zeros((4, 5), np.float32)
    for row, n_genes in enumerate([5, 3, 2, 0]):
        counts[row, :n_genes] = 7
    small = anndata.AnnData(scipy.sparse.csr_matrix(counts))
    write_store(small, tmp_path / "all.zarr")
    small.obs["in_tissue"] = [0, 1, 1, 1]
    write_store(small, tmp_path / "some.zarr")
    assert [SpotStore(tmp_path / "all.zarr").trainable(n).tolist() for n in (0, 3, 6)] == [[0, 1, 2, 3], [0, 1], []]
    assert [SpotStore(tmp_path / "some.zarr").trainable(n).tolist() for n in (0, 3, 6)] == [[1, 2, 3], [1], []]


def test_a_store_of_counts_alone(tmp_path):
    write_store(anndata.AnnData(np.ones((3, 2), np.float32)), tmp_path / "counts.zarr")
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
        attrs["stp_store"] = {} if kind == "other SpatialData" else {**attrs["stp_store"], "version": 99}


@pytest.mark.parametrize(
    "kind", ["absent", "folder", "text", "zarr array", "AnnData", "other SpatialData", "other version"]
)
def test_what_is_no_training_store_is_refused(kind, tmp_path, stores):
    path = tmp_path / "x.zarr"
    make_anything(kind, path, stores)
    with pytest.raises(ValueError, match=r"is not a training store .*; stp\.io\.write_store makes one") as error:
        SpotStore(path)
    assert str(path) in str(error.value)


def test_an_unknown_table_is_refused_by_name(stores):
    with pytest.raises(ValueError, match="not a training store with a table 'cells'"):
        SpotStore(stores[0], "cells")


def test_stores_are_read_with_zarr_alone(stores, vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.parquet")
    code = f"""
import sys
from stp.data.dataset import SpotStore
from stp.vocabulary import Vocabulary
store = SpotStore({str(stores[0])!r})
store.tokens(Vocabulary.load({str(tmp_path / "vocabulary.parquet")!r}), 8)
store.pyramid.read(store.coordinates[:2], size=8, um_per_px=4.0)
print({{"anndata", "spatialdata", "dask", "pandas"}} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.fixture
def tokens(stores, vocabulary):
    def make(seed=0, fraction=0.15):
        opened = [SpotStore(path) for path in stores[:2]]
        return TokenDataset(opened, vocabulary, context_length=20, fraction=fraction, seed=seed)

    return make


def picks(*spots, epoch=0):
    return Picks(epoch, np.array(spots))


def test_a_batch_of_tokens(tokens, vocabulary):
    dataset = tokens()
    dataset.tokens[1][5, 3:] = 0  # a spot with three genes
    batch = dataset[picks((1, 5), (0, 3), (0, 7))]
    assert {name: (tuple(values.shape), values.dtype) for name, values in batch.items()} == {
        "inputs": ((3, 20), torch.int64),
        "targets": ((3, 20), torch.int64),
        "chosen": ((3, 20), torch.bool),
    }
    assert (batch["targets"][0, 3:] == PAD_ID).all()
    assert (batch["inputs"][0, 3:] == PAD_ID).all()
    assert batch["chosen"].sum(dim=1).tolist() == [1, 3, 3]
    np.testing.assert_array_equal(batch["targets"][1], dataset.tokens[0][3])
    assert (batch["inputs"] == batch["targets"])[~batch["chosen"]].all()
    hidden = batch["inputs"][batch["chosen"]]
    assert ((hidden == MASK_ID) | ((hidden >= vocabulary.n_special) & (hidden < vocabulary.n_tokens))).all()


def test_a_batch_is_as_long_as_its_longest_spot(tokens):
    dataset = tokens()
    dataset.tokens[0][3, 8:] = 0
    dataset.tokens[0][4, 4:] = 0
    assert dataset[picks((0, 3), (0, 4))]["inputs"].shape == (2, 8)


def test_masks_depend_on_seed_store_spot_and_epoch_alone(tokens):
    first = tokens(fraction=0.5)[picks((0, 3), (1, 3), (0, 4))]
    again = tokens(fraction=0.5)[picks((0, 9), (1, 3), (0, 3))]  # another dataset, order and company
    for name in first:
        assert torch.equal(first[name][0], again[name][2])
        assert torch.equal(first[name][1], again[name][1])

    def chosen(seed=0, epoch=0, spot=(0, 3)):
        return tokens(seed, fraction=0.5)[picks(spot, epoch=epoch)]["chosen"][0].tolist()

    masks = [chosen(), chosen(seed=1), chosen(epoch=1), chosen(spot=(1, 3)), chosen(spot=(0, 4))]
    assert len(set(map(tuple, masks))) == 5


def test_log_frequency_by_hand(tokens, vocabulary):
    dataset = tokens()
    rows = [np.array([0, 1]), np.array([4])]
    seen = np.concatenate([dataset.tokens[0][[0, 1]].ravel(), dataset.tokens[1][4]])
    expected = np.ones(vocabulary.n_tokens)
    for token in seen:
        expected[token] += token >= vocabulary.n_special
    found = dataset.log_frequency(rows)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.exp().numpy(), expected / expected.sum(), rtol=1e-5)
