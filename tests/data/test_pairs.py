import anndata
import numpy as np
import PIL.Image
import pytest
import torch

from stp.data.augmentation import rotate, rotate_cells
from stp.data.pairs import PairDataset, region_centers
from stp.data.samplers import SpotIndex
from stp.data.store import SpotStore
from stp.images.pyramid import ImagePyramid
from stp.io import from_anndata, write_store

SIZE = 48  # the patch is 16 px wide in its region
UM = 4.0
GENES = "EPCAM KRT8 KRT18 ERBB2 COL1A1 DCN LUM PTPRC CD3D CD3E VIM ACTB"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store whose image is different everywhere, so that the 9 cells of any region differ."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    noise = PIL.Image.fromarray(rng.integers(0, 256, (50, 60, 3)).astype(np.uint8))
    image = np.asarray(noise.resize((1200, 1000), PIL.Image.Resampling.BICUBIC))
    counts = AnnData(rng.poisson(3, (30, 12)).astype(np.float32))
    counts.var_names = GENES.split()
    counts.obsm["spatial"] = rng.uniform([300, 300], [900, 700], (30, 2))
    path = tmp_path_factory.mktemp("pairs") / "noise.zarr"
    write_store(from_anndata(counts, image, um_per_px=2.0), path, patch_um_per_px=UM)
    return SpotStore(path)


@pytest.fixture
def pairs(store, ranked):
    def make(seed=0, rotate=False, stain_jitter=0.0):
        return PairDataset(
            [store],
            {"genes": ranked([store], 8)},
            image_size=SIZE,
            um_per_px=UM,
            seed=seed,
            rotate=rotate,
            stain_jitter=stain_jitter,
        )

    return make


def spot_index(*rows, epoch=0):
    return SpotIndex(epoch, np.array([(0, row) for row in rows]))


def distances(region, patch):
    """Mean difference of the shrunk patch to each of the nine cells of a region."""
    small = np.asarray(
        PIL.Image.fromarray(patch).resize((16, 16), PIL.Image.Resampling.BILINEAR), dtype=int
    )
    cells = region.reshape(3, 16, 3, 16, 3).swapaxes(1, 2).reshape(9, 16, 16, 3)
    return np.abs(cells - small).mean(axis=(1, 2, 3))


def test_region_centers_by_hand():
    centers = np.full((9, 2), 1000.0)
    placed = region_centers(centers, np.arange(9), 100.0)
    # The patch in the upper left cell has its region to the lower right, and so on.
    assert placed.tolist() == [[x, y] for y in (1100, 1000, 900) for x in (1100, 1000, 900)]


@pytest.mark.parametrize("cell", range(9))
def test_the_patch_fills_the_named_cell_of_its_region(cell, store):
    rows = np.arange(10)
    patches = store.pyramid.read(store.coordinates[rows], size=SIZE, um_per_px=UM)
    around = region_centers(store.coordinates[rows], np.full(10, cell), SIZE * UM)
    regions = store.pyramid.read(around, size=SIZE, um_per_px=3 * UM)
    for region, patch in zip(regions, patches, strict=True):
        to_cells = distances(region, patch)
        assert to_cells.argmin() == cell
        assert to_cells[cell] < 0.35 * np.delete(to_cells, cell).min()


def find_patch(region, patch):
    """Search the shrunk patch in its region: row and column of the best place, in pixels."""
    side = len(region) // 3
    small = np.asarray(
        PIL.Image.fromarray(patch).resize((side, side), PIL.Image.Resampling.BILINEAR), dtype=int
    )
    places = np.lib.stride_tricks.sliding_window_view(region.astype(int), (side, side), axis=(0, 1))
    off = np.abs(places - np.moveaxis(small, -1, 0)).mean(axis=(2, 3, 4))
    return np.array(np.unravel_index(off.argmin(), off.shape))


@pytest.mark.parametrize("cell", range(9))
def test_a_patch_is_found_in_the_cell_of_its_label(cell, store):
    patches = store.pyramid.read(store.coordinates, size=SIZE, um_per_px=UM)
    around = region_centers(store.coordinates, np.full(len(patches), cell), SIZE * UM)
    regions = store.pyramid.read(around, size=SIZE, um_per_px=3 * UM)
    for region, patch in zip(regions, patches, strict=True):
        assert np.abs(find_patch(region, patch) - np.array(divmod(cell, 3)) * SIZE // 3).max() <= 1


def test_patches_of_a_real_section_are_found_in_their_regions(real):
    adata = anndata.read_h5ad(real("her2st", "C6.h5ad"), backed="r")
    (level,) = ImagePyramid.from_path(real("her2st", "C6.jpg"), um_per_px=0.6836).levels
    height, width = level.shape
    pyramid = ImagePyramid.from_array(level.read(0, height, 0, width), 0.6836)  # decoded once
    centers = adata.obsm["spatial"][::20]
    for cell in range(9):
        around = region_centers(centers, np.full(len(centers), cell), 48 * 2 / 0.6836)
        regions = pyramid.read(around, size=48, um_per_px=6.0)
        patches = pyramid.read(centers, size=48, um_per_px=2.0)
        for region, patch in zip(regions, patches, strict=True):
            assert np.abs(find_patch(region, patch) - np.array(divmod(cell, 3)) * 16).max() <= 1


@pytest.mark.parametrize("is_rotated", [False, True])
def test_cells_of_a_batch_are_the_places_of_its_patches(is_rotated, pairs):
    dataset = pairs(rotate=is_rotated)
    for epoch in range(3):
        batch = dataset[spot_index(*range(30), epoch=epoch)]
        assert batch["rotations"].any() == is_rotated
        regions = rotate(batch["regions"], batch["rotations"]).numpy()
        patches = rotate(batch["patches"], batch["rotations"]).numpy()
        cells = rotate_cells(batch["cells"], batch["rotations"]).tolist()
        for cell, region, patch in zip(cells, regions, patches, strict=True):
            to_cells = distances(region, patch)
            assert to_cells.argmin() == cell
            assert to_cells[cell] < 0.35 * np.delete(to_cells, cell).min()
        assert len(set(batch["cells"].tolist())) > 5


def test_a_batch_of_pairs(pairs, store, ranked):
    batch = pairs()[spot_index(4, 2, 9)]
    assert {name: (tuple(values.shape), values.dtype) for name, values in batch.items()} == {
        "genes": ((3, 8), torch.uint16),
        "patches": ((3, SIZE, SIZE, 3), torch.uint8),
        "regions": ((3, SIZE, SIZE, 3), torch.uint8),
        "cells": ((3,), torch.int64),
        "rotations": ((3,), torch.int64),
        "stains": ((3, 3), torch.float32),
    }
    expected = store.pyramid.read(store.coordinates[[4, 2, 9]], size=SIZE, um_per_px=UM)
    np.testing.assert_array_equal(batch["patches"], expected)
    np.testing.assert_array_equal(batch["genes"], ranked([store], 8)[0][[4, 2, 9]])
    assert (batch["stains"] == 1).all()


def test_pairs_of_several_stores_keep_their_order(stores, ranked):
    opened = [SpotStore(path) for path in stores[:2]]
    dataset = PairDataset(
        opened, {"genes": ranked(opened, 8)}, image_size=16, um_per_px=4.0, seed=0
    )
    spots = [(1, 5), (0, 3), (1, 2), (0, 9)]
    batch = dataset[SpotIndex(0, np.array(spots))]
    for index, (store, row) in enumerate(spots):
        np.testing.assert_array_equal(
            batch["patches"][index], dataset.patches(store, np.array([row]))[0]
        )
        np.testing.assert_array_equal(batch["genes"][index], dataset.targets["genes"][store][row])


def test_draws_depend_on_seed_spot_and_epoch_alone(pairs):
    first = pairs(rotate=True, stain_jitter=0.1)[spot_index(4, 2, 9)]
    again = pairs(rotate=True, stain_jitter=0.1)[spot_index(7, 4)]
    for name in first:
        assert torch.equal(first[name][0], again[name][1])
    batches = [
        pairs()[spot_index(*range(30))],
        pairs(seed=1)[spot_index(*range(30))],
        pairs()[spot_index(*range(30), epoch=1)],
    ]
    assert len({tuple(batch["cells"].tolist()) for batch in batches}) == 3


def test_cells_are_uniform(pairs):
    dataset = pairs()
    cells = [dataset._draw(0, row, epoch).cell for row in range(300) for epoch in range(10)]
    np.testing.assert_allclose(np.bincount(cells, minlength=9) / 3000, 1 / 9, atol=0.02)


def test_a_spot_at_the_border_fills_any_cell(store):
    """Regions that leave the image are padded, so that no cell is likelier there than elsewhere."""
    centers = np.array([[SIZE * UM / 2, SIZE * UM / 2]] * 9)
    (patch,) = store.pyramid.read(centers[:1], size=SIZE, um_per_px=UM)
    around = region_centers(centers, np.arange(9), SIZE * UM)
    regions = store.pyramid.read(around, size=SIZE, um_per_px=3 * UM)
    assert [int(distances(region, patch).argmin()) for region in regions] == list(range(9))
    assert (regions[8][:16] == 255).all()  # outside is white


def test_stains_vary_about_one(pairs):
    stains = torch.cat(
        [
            pairs(stain_jitter=0.2)[spot_index(*range(30), epoch=epoch)]["stains"]
            for epoch in range(5)
        ]
    )
    logs = stains.log()
    assert logs.mean().abs() < 0.04
    assert logs.std() == pytest.approx(0.2, rel=0.15)
