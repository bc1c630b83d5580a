"""The steps of `benchmarks.speed.large_slides`; each reads its inputs, and can then be run."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import dask.array
import numpy as np
import zarr

import stp
from benchmarks.speed.large_slides_tables import (
    BIN_UM,
    GENES,
    IMAGES,
    UM_PER_PX,
    add_embedding,
    count_bins,
    make_slide,
    read_lazily,
    read_rows,
    read_table,
)
from stp.images.slides import SlideQuery, only_slide

N_REFERENCES = 10_000
N_PREDICTED = 500
EPOCHS = 3  # of neighborhoods
TOKENS = "stp_tokens"


@dataclass(frozen=True)
class Step:
    """A step whose inputs are in memory."""

    run: Callable[[], None]
    input_bytes: int
    output_bytes: Callable[[], int]


def tokenize(folder: Path) -> Step:
    """Rank the genes of counts in memory."""
    adata = read_table(folder)
    vocabulary = fit_vocabulary(folder)
    return Step(
        lambda: stp.tl.tokenize(adata, vocabulary),
        bytes_of(adata.X),
        lambda: adata.obsm[TOKENS].nbytes,
    )


def tokenize_with_dask(folder: Path) -> Step:
    """Rank the genes of chunks of counts that are read from disk."""
    adata = read_lazily(folder)
    vocabulary = fit_vocabulary(folder)

    def run() -> None:
        stp.tl.tokenize(adata, vocabulary)
        adata.obsm[TOKENS] = np.asarray(adata.obsm[TOKENS])

    return Step(run, 0, lambda: adata.obsm[TOKENS].nbytes)


def embed_genes(folder: Path) -> Step:
    """Embed spots with a tiny encoder, whose own work counts little."""
    adata = read_table(folder)
    vocabulary = fit_vocabulary(folder)
    stp.tl.tokenize(adata, vocabulary)
    del adata.X
    config = stp.models.GeneEncoderConfig(width=8, depth=1, n_heads=1, ffn_width=8)
    encoder = stp.models.GeneEncoder(config, vocabulary)

    def run() -> None:
        stp.tl.embed_genes(adata, encoder, batch_size=256, progress=False)

    return Step(run, adata.obsm[TOKENS].nbytes, lambda: adata.obsm["X_stp_genes"].nbytes)


def fuse(folder: Path) -> Step:
    """Put the embeddings of genes and images next to each other."""
    adata = read_table(folder)
    keys = ("X_stp_genes", "X_stp_images")
    for seed, key in enumerate(keys):
        add_embedding(adata, key, seed)
    return Step(
        lambda: stp.tl.fuse(adata),
        sum(adata.obsm[key].nbytes for key in keys),
        lambda: adata.obsm["X_stp_fused"].nbytes,
    )


def predict_expression(folder: Path) -> Step:
    """Predict 500 genes from 10,000 references."""
    adata = read_table(folder)
    del adata.X
    add_embedding(adata, IMAGES, 0)
    n_references = min(N_REFERENCES, adata.n_obs)
    reference = anndata.AnnData(read_rows(folder, 0, n_references))
    reference.var_names = stp.Vocabulary.default().gene_ids.astype(str)
    add_embedding(reference, GENES, 1)
    genes = list(reference.var_names[:N_PREDICTED])
    names = ("", "_uncertainty", "_neighbors", "_similarity")
    return Step(
        lambda: stp.tl.predict_expression(adata, reference, genes=genes),
        adata.obsm[IMAGES].nbytes + reference.obsm[GENES].nbytes + bytes_of(reference.X),
        lambda: sum(adata.obsm[f"stp_expression{name}"].nbytes for name in names),
    )


def plot(folder: Path) -> Step:
    """Draw clusters and a gene on the tissue, and save the figure."""
    adata = read_table(folder)
    x, y = adata.obsm["spatial"].T * UM_PER_PX / BIN_UM
    adata.obs["cluster"] = (x // 40 + y // 40).astype(int) % 8
    adata.obs["cluster"] = adata.obs["cluster"].astype(str).astype("category")
    gene = str(adata.var_names[int(np.argmax(np.asarray(adata.X.sum(axis=0))))])
    slide = make_slide(folder, adata)

    def run() -> None:
        figure = folder / "spots.png"
        stp.pl.spots(slide, ["cluster", gene], save=figure, show=False)

    return Step(run, bytes_of(adata.X), lambda: 0)


def write_store(folder: Path) -> Step:
    """Write counts and image as a store."""
    adata = read_table(folder)
    slide = make_slide(folder, adata)
    path = folder / "store.zarr"
    shutil.rmtree(path, ignore_errors=True)
    size = bytes_of(adata.X)  # the store has the counts once in memory
    return Step(lambda: stp.io.write_store(slide, path), size, lambda: size)


def start_neighborhoods(folder: Path) -> Step:
    """Count the batches of three epochs of neighborhoods, then read them."""
    from stp.data.samplers import GroupSampler

    centers = read_table(folder).obsm["spatial"]
    sampler = GroupSampler([centers], [np.arange(len(centers))], 216, 0)

    def run() -> None:
        for _ in ("count", "read"):
            for epoch in range(EPOCHS):
                sampler.batches(epoch)

    return Step(run, centers.nbytes, lambda: 0)


def find_labels(folder: Path) -> Step:
    """Find the centers of bins that are labels of pixels."""
    from stp.images.label_centers import label_centers

    side = int(np.ceil(np.sqrt(count_bins(folder))))
    pixels = round(BIN_UM / UM_PER_PX)
    rows = dask.array.arange(side * pixels, chunks=1024) // pixels
    labels = rows[:, None] * side + rows[None] + 1
    sizes = []

    def run() -> None:
        sizes.append(sum(array.nbytes for array in label_centers(labels)))

    return Step(run, 0, lambda: sizes[-1])


def read_one_page(folder: Path) -> Step:
    """Open a slide whose image can only be decoded as a whole, and read ten patches."""
    pages = zarr.open_array(folder / "image.zarr", mode="r")
    page = dask.array.from_delayed(dask.delayed(pages.__getitem__)(...), pages.shape, np.uint8)
    adata = read_table(folder)
    slide = stp.io.from_anndata(adata, page, um_per_px=UM_PER_PX, name="bins")

    def run() -> None:
        pyramid = only_slide(slide, slide["table"], SlideQuery()).pyramid
        for center in adata.obsm["spatial"][:10]:
            pyramid.read(center[None] * UM_PER_PX, size=224, um_per_px=UM_PER_PX)

    return Step(run, 0, lambda: pages.nbytes)


STEPS: dict[str, Callable[[Path], Step]] = {
    "tokenize": tokenize,
    "tokenize_dask": tokenize_with_dask,
    "embed_genes": embed_genes,
    "fuse": fuse,
    "predict_expression": predict_expression,
    "spots": plot,
    "write_store": write_store,
    "start_neighborhoods": start_neighborhoods,
    "label_centers": find_labels,
    "one_page_image": read_one_page,
}


def fit_vocabulary(folder: Path) -> stp.Vocabulary:
    """Return a vocabulary with the gene means of a part of the slide."""
    table = anndata.AnnData(read_rows(folder, 0, min(2_000, count_bins(folder))))
    table.var_names = stp.Vocabulary.default().gene_ids.astype(str)
    return stp.Vocabulary.default().fit(table)


def bytes_of(counts: object) -> int:
    """Return the size of a sparse matrix."""
    return sum(getattr(counts, name).nbytes for name in ("data", "indices", "indptr"))
