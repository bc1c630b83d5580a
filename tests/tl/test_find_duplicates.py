"""Stores that share counts or images are found, serial sections are not."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stp import Vocabulary, tl
from stp.data.collection import Collection
from stp.io import from_anndata, write_store

N_SPOTS = 60
N_GENES = 3000
PITCH = 100
UM_PER_PX = 2.0
# Spots and genes of the smaller store after each change.
N_EQUAL = {
    "another order": (60, 3000),
    "a third of the spots": (20, 3000),
    "without rare genes and some spots": (40, 2800),
    "few genes": (60, 400),
}
# What is done with the image, and what is said about it.
COPIES = {
    "rotated clockwise by 270°": lambda image: np.rot90(image),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored, rotated clockwise by 180°": lambda image: image[::-1],
    "cropped to 56% of the area": lambda image: image[61:541, 203:903],
    "rotated clockwise by 90°, cropped to 56% of the area": lambda image: np.rot90(
        image[61:541, 203:903], -1
    ),
    "the same view with other pixels": lambda image: image // 2 + 60,
    "all pixels of the coarser level are equal": lambda image: image,
}


@pytest.fixture(scope="module")
def deep_slide():
    """Counts of 3,000 genes as deep as those of Visium, and a picture with nuclei."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.6, 2.0, N_GENES)
    counts = rng.poisson(rates * rng.gamma(3, 0.4, (N_SPOTS, 1)) * rng.gamma(2, 0.5, N_GENES))
    adata = anndata.AnnData(scipy.sparse.csr_matrix(counts.astype(np.float32)))
    adata.var_names = Vocabulary.default().symbols[:N_GENES].astype(str)
    column, row = np.meshgrid(np.arange(10), np.arange(6))
    adata.obsm["spatial"] = (np.stack([column, row], -1).reshape(-1, 2) + 0.5) * PITCH
    return adata, draw_tissue(rng, 6 * PITCH, 10 * PITCH)


def draw_tissue(rng, height, width):
    """Draw dark nuclei of all sizes on pink."""
    image = np.full((height, width, 3), (220, 150, 190), np.uint8)
    y, x = np.mgrid[:height, :width]
    for _ in range(700):
        center_y, center_x = rng.uniform(0, height), rng.uniform(0, width)
        near_y = slice(max(0, int(center_y) - 24), int(center_y) + 24)
        near_x = slice(max(0, int(center_x) - 24), int(center_x) + 24)
        axes = rng.uniform(3, 20, 2)
        place_y, place_x = y[near_y, near_x], x[near_y, near_x]
        is_nucleus = ((place_y - center_y) / axes[0]) ** 2 + (
            (place_x - center_x) / axes[1]
        ) ** 2 < 1
        image[near_y, near_x][is_nucleus] = rng.integers(60, 200, 3)
    return image


def write(slide, path, image=None):
    sdata = slide if image is None else from_anndata(slide, image, um_per_px=UM_PER_PX)
    write_store(sdata, path, patch_um_per_px=UM_PER_PX)
    return path


def pick(adata, rng, change):
    """Return a copy of the table after a change that keeps its counts."""
    if change == "another order":
        spots, genes = rng.permutation(N_SPOTS), rng.permutation(N_GENES)
    elif change == "a third of the spots":
        spots, genes = rng.permutation(N_SPOTS)[:20], np.arange(N_GENES)
    elif change == "without rare genes and some spots":
        total = np.asarray(adata.X.sum(axis=0)).ravel()
        spots, genes = np.arange(40), np.argsort(-total)[:2800]
    else:
        spots, genes = np.arange(N_SPOTS), rng.permutation(N_GENES)[:400]
    return adata[spots, genes].copy()


@pytest.fixture(scope="module")
def pairs_of_counts(deep_slide, tmp_path_factory):
    """Pairs of a store and stores with the same counts, by the name of the change."""
    adata, _ = deep_slide
    folder = tmp_path_factory.mktemp("counts")
    rng = np.random.default_rng(1)
    write(adata, folder / "original.zarr")
    for change in N_EQUAL:
        write(pick(adata, rng, change), folder / f"{change}.zarr")
    pairs = tl.find_duplicates([folder / f"{name}.zarr" for name in ("original", *N_EQUAL)])
    of_original = pairs[pairs["first"] == str(folder / "original.zarr")]
    return {Path(pair.second).stem: pair for pair in of_original.itertuples()}


@pytest.mark.parametrize("change", N_EQUAL)
def test_equal_counts_are_found_in_any_order_and_part(pairs_of_counts, change):
    pair = pairs_of_counts[change]
    n_spots, n_genes = N_EQUAL[change]
    assert (pair.kind, pair.share) == ("equal counts", 1)
    assert pair.note == f"{n_spots} equal spots on {n_genes:,} shared genes"


def test_the_share_is_that_of_the_smaller_store(deep_slide, tmp_path):
    adata, _ = deep_slide
    other = adata[::-1].copy()
    rng = np.random.default_rng(2)
    other.X = scipy.sparse.csr_matrix(rng.permutation(other.X.toarray(), axis=1))
    mixed = anndata.concat([adata[:12], other[:36]], index_unique="-")
    paths = [write(adata, tmp_path / "a.zarr"), write(mixed, tmp_path / "b.zarr")]
    (pair,) = tl.find_duplicates(paths).itertuples()
    assert (pair.kind, pair.share) == ("equal counts", 12 / 48)


def test_nearly_equal_spots_are_found_and_other_spots_of_the_tissue_are_not(deep_slide, tmp_path):
    adata, _ = deep_slide
    rng = np.random.default_rng(3)
    aligned_again = adata.copy()
    is_lost = rng.random(adata.X.nnz) < 0.01
    aligned_again.X.data = np.where(is_lost, adata.X.data + 1, adata.X.data)
    neighbors = adata.copy()
    neighbors.X = scipy.sparse.csr_matrix(rng.poisson(adata.X.toarray()).astype(np.float32))
    paths = [
        write(slide, tmp_path / f"{name}.zarr")
        for slide, name in ((adata, "a"), (aligned_again, "b"), (neighbors, "c"))
    ]
    (pair,) = tl.find_duplicates(paths).itertuples()
    assert (pair.first, pair.second) == (str(paths[0]), str(paths[1]))
    assert pair.kind == "nearly equal spots"
    assert pair.share > 0.9


@pytest.fixture(scope="module")
def pairs_of_images(deep_slide, tmp_path_factory):
    """Pairs of a store and stores with a copy of its image and other counts, by the note."""
    adata, image = deep_slide
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(4)
    paths = [write(adata, folder / "original.zarr", image)]
    for number, change in enumerate(COPIES.values()):
        counts = rng.poisson(2.0, (4, 50)).astype(np.float32)
        other = anndata.AnnData(scipy.sparse.csr_matrix(counts))
        other.var_names = adata.var_names[:50]
        other.obsm["spatial"] = np.array([[150.0, 150], [250, 150], [150, 250], [250, 250]])
        copied = np.ascontiguousarray(change(image))
        paths.append(write(other, folder / f"{number}.zarr", copied))
    pairs = tl.find_duplicates(paths)
    of_original = pairs[pairs["first"] == str(paths[0])]
    return {pair.note: pair for pair in of_original.itertuples()}


@pytest.mark.parametrize("note", COPIES)
def test_copies_of_images_are_found(pairs_of_images, note):
    pair = pairs_of_images[note]
    number = list(COPIES).index(note)
    assert Path(pair.second).stem == str(number)
    is_equal = note.startswith("all pixels")
    assert pair.kind == ("equal image" if is_equal else "rotated or cropped copy")
    assert pair.share == pytest.approx(1, abs=0.01)


def test_names_are_those_of_the_collection(deep_slide, tmp_path):
    adata, _ = deep_slide
    write(adata, tmp_path / "a.zarr")
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    table = pd.DataFrame({"name": ["one", "two"], "path": ["a.zarr", "b.zarr"], "digest": ["", ""]})
    pairs = tl.find_duplicates(Collection(table, tmp_path))
    assert pairs[["first", "second"]].to_numpy().tolist() == [["one", "two"]]


def test_one_path_is_no_list(tmp_path):
    with pytest.raises(ValueError, match="pass a list of paths, or the collection"):
        tl.find_duplicates(tmp_path)


def test_serial_sections_are_no_copies(real, tmp_path):
    """Three sections of one tumor, and the images of three sections of the olfactory bulb."""
    paths = []
    for name in ("C2", "C4", "C6"):
        adata = anndata.read_h5ad(real("her2st", f"{name}.h5ad"))
        del adata.uns, adata.obsm
        paths.append(write(adata, tmp_path / f"{name}.zarr"))
    for name in ("mob_rep04", "mob_rep09", "mob_rep11"):
        adata = anndata.read_h5ad(real("mob_st", f"{name}.h5ad"))[:, :50].copy()
        adata.var_names = Vocabulary.default().symbols[:50].astype(str)  # the image counts
        um_per_px = adata.uns["um_per_px"]  # about 2.756, so that the stores have a white frame
        sdata = from_anndata(adata, real("mob_st", f"{name}.jpg"), um_per_px=um_per_px)
        write_store(sdata, tmp_path / f"{name}.zarr", patch_um_per_px=2.75)
        paths.append(tmp_path / f"{name}.zarr")
    assert tl.find_duplicates(paths).empty
