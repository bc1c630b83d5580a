"""The synthetic slides of `benchmarks.speed.large_slides`: counts, centers and an image."""

from pathlib import Path

import anndata
import dask.array
import numpy as np
import scipy.sparse as sp
import zarr

import stp
from benchmarks.speed.retrieval import draw_unit_vectors

BIN_UM = 8.0
UM_PER_PX = 0.5
GENES_PER_BIN = 300
CHUNK_ROWS = 10_000
TILE_PIXELS = 1024
WIDTH = 512  # of embeddings
IMAGES = "X_stp_images_aligned"
GENES = "X_stp_genes_aligned"
MODEL = {"model": {"name": "random", "class": "Stamp", "digest": "0" * 64, "vocabulary": None}}


def write_slide(folder: Path, n_bins: int) -> None:
    """Write a slide unless it is there: arrays of the counts, and an image in Zarr."""
    if (folder / "image.zarr").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    parts = [
        draw_counts(rng, min(CHUNK_ROWS, n_bins - start)) for start in range(0, n_bins, CHUNK_ROWS)
    ]
    counts = sp.vstack(parts, format="csr")
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(counts, name))
    write_image(folder / "image.zarr", round(side_um(n_bins) / UM_PER_PX))


def draw_counts(rng: np.random.Generator, n_bins: int) -> sp.csr_matrix:
    """Draw the counts of some bins: few genes have most of them."""
    n_genes = len(stp.Vocabulary.default())
    share = np.random.default_rng(1).lognormal(0, 1.6, n_genes)
    n_umis = rng.poisson(1.1 * GENES_PER_BIN * rng.lognormal(0, 0.2, n_bins))
    genes = np.searchsorted(np.cumsum(share / share.sum()), rng.random(n_umis.sum()))
    indptr = np.concatenate([[0], np.cumsum(n_umis)])
    ones = np.ones(len(genes), np.float32)
    indices = np.minimum(genes, n_genes - 1).astype(np.int32)
    counts = sp.csr_matrix((ones, indices, indptr), shape=(n_bins, n_genes))
    counts.sum_duplicates()
    return counts


def side_um(n_bins: int) -> float:
    """Return the side of the square slide."""
    return float(np.ceil(np.sqrt(n_bins)) * BIN_UM)


def write_image(path: Path, side: int) -> None:
    """Write a square image that repeats one tile of random pink."""
    rng = np.random.default_rng(2)
    tile = np.clip(rng.normal((220, 150, 190), 25, (TILE_PIXELS, TILE_PIXELS, 3)), 0, 255)
    tile = tile.astype(np.uint8)
    image = zarr.create_array(
        path, shape=(side, side, 3), chunks=(TILE_PIXELS, TILE_PIXELS, 3), dtype="uint8"
    )
    for top in range(0, side, TILE_PIXELS):
        for left in range(0, side, TILE_PIXELS):
            height, width = min(TILE_PIXELS, side - top), min(TILE_PIXELS, side - left)
            image[top : top + height, left : left + width] = tile[:height, :width]


def read_rows(folder: Path, start: int, stop: int) -> sp.csr_matrix:
    """Read the counts of some bins into memory."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("data", "indices")}
    indptr = np.load(folder / "indptr.npy")[start : stop + 1]
    part = slice(indptr[0], indptr[-1])
    return sp.csr_matrix(
        (np.array(arrays["data"][part]), np.array(arrays["indices"][part]), indptr - indptr[0]),
        shape=(stop - start, len(stp.Vocabulary.default())),
    )


def count_bins(folder: Path) -> int:
    """Return the number of bins of a slide."""
    return len(np.load(folder / "indptr.npy")) - 1


def read_table(folder: Path) -> anndata.AnnData:
    """Read counts and centers of a slide into memory; centers are in pixels."""
    n_bins = count_bins(folder)
    adata = annotate(anndata.AnnData(read_rows(folder, 0, n_bins)))
    rows, columns = np.divmod(np.arange(n_bins), int(np.ceil(np.sqrt(n_bins))))
    adata.obsm["spatial"] = (np.stack([columns, rows], axis=1) + 0.5) * BIN_UM / UM_PER_PX
    return adata


def read_lazily(folder: Path) -> anndata.AnnData:
    """Return the counts of a slide as chunks that Dask reads."""
    n_bins = count_bins(folder)
    starts = np.arange(0, n_bins, CHUNK_ROWS)
    n_rows = tuple(int(n) for n in np.minimum(CHUNK_ROWS, n_bins - starts))
    counts = dask.array.from_array(starts, chunks=1).map_blocks(
        lambda start: read_rows(folder, int(start[0]), min(int(start[0]) + CHUNK_ROWS, n_bins)),
        chunks=(n_rows, (len(stp.Vocabulary.default()),)),
        new_axis=1,
        dtype=np.float32,
        meta=sp.csr_matrix((0, 0), dtype=np.float32),
    )
    return annotate(anndata.AnnData(counts))


def annotate(adata: anndata.AnnData) -> anndata.AnnData:
    """Name the genes as the vocabulary does."""
    vocabulary = stp.Vocabulary.default()
    adata.var_names = vocabulary.gene_ids.astype(str)
    return adata


def add_embedding(adata: anndata.AnnData, key: str, seed: int) -> None:
    """Write random unit vectors as if a model had made them."""
    adata.obsm[key] = draw_unit_vectors(adata.n_obs, WIDTH, seed)
    adata.uns[key] = MODEL


def make_slide(folder: Path, adata: anndata.AnnData) -> "object":
    """Join a table and the image of a slide."""
    image = dask.array.from_zarr(folder / "image.zarr")
    return stp.io.from_anndata(
        adata, image, um_per_px=UM_PER_PX, spot_diameter_um=BIN_UM, name="bins"
    )
