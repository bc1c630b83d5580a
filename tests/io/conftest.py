"""Fixtures of reading and writing: a slide whose spots are marked in its image."""

import anndata
import numpy as np
import pytest
import scipy.sparse

from stp.images.slides import SlideQuery
from stp.io import from_anndata
from stp.io._store import TableQuery, write_slide
from stp.io._store_image import StoreLevels


def table(counts, names, **more):
    adata = anndata.AnnData(scipy.sparse.csr_matrix(np.asarray(counts, np.float32)), **more)
    adata.var_names = names
    return adata


def write_in_chunks(sdata, path, patch_um_per_px, chunk_pixels=64):
    """Write a store with small chunks, so that a small slide has several shards."""
    levels = StoreLevels(patch_um_per_px, region_scale=3, chunk_pixels=chunk_pixels)
    write_slide(sdata, path, TableQuery(), SlideQuery(), levels)


@pytest.fixture
def marked_slide(bare_slide):
    """A slide at 0.7 µm per pixel, in whose image a bright square of 4 x 4 px marks each spot."""
    adata, centers = bare_slide
    image = np.full((901, 1102, 3), 40, np.uint8)
    for x, y in centers:
        image[y - 2 : y + 2, x - 2 : x + 2] = (250, 150, 50)
    return from_anndata(adata, image, um_per_px=0.7)


@pytest.fixture
def bare_slide():
    rng = np.random.default_rng(0)
    centers = np.stack(
        np.meshgrid(np.arange(100, 1050, 150), np.arange(100, 850, 150)), axis=-1
    ).reshape(-1, 2)
    centers = centers + rng.integers(-30, 30, centers.shape)
    adata = table(rng.poisson(3, (len(centers), 2)), ["ACTB", "ERBB2"])
    adata.obsm["spatial"] = centers.astype(float)
    return adata, centers
