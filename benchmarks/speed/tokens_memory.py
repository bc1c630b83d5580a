"""How much memory and storage do tokens take? Backed files, Dask, a million spots, and padding.

    python -m benchmarks.speed.tokens_memory --folder runs/tokens --data ../shared/data/her2st

Every measurement runs in a new process. Memory is by how much its peak grows during the work.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import anndata
import dask.array
import numpy as np
import scipy.sparse as sp
import zarr

import stp
from benchmarks.measure import (
    Row,
    at_most,
    in_new_process,
    make_parser,
    process_kb,
    silence_logger,
    write_results,
)
from benchmarks.speed.tokens import draw_counts

N_CHUNKS = 10
N_BLOCK = 1000  # spots that are drawn; larger tables repeat them
MAX_CHUNKS = 3.0  # goal: peak memory in chunks of counts
MAX_PADDING = 0.05  # goal: what padding adds to the stored bytes


def draw_rows(block: sp.csr_matrix, seed: int, n_rows: int) -> sp.csr_matrix:
    """Draw rows of a table, with replacement."""
    return block[np.random.default_rng(seed).integers(0, block.shape[0], n_rows)]


def make_lazy_counts(block: sp.csr_matrix, n_chunks: int, chunk_rows: int) -> dask.array.Array:
    """Return chunks of counts that are drawn when they are computed."""
    seeds = dask.array.arange(n_chunks, chunks=1)
    return seeds.map_blocks(
        lambda seed: draw_rows(block, int(seed[0]), chunk_rows),
        chunks=((chunk_rows,) * n_chunks, (block.shape[1],)),
        new_axis=1,
        dtype=np.float32,
        meta=sp.csr_matrix((0, 0), dtype=np.float32),
    )


def write_tables(folder: Path, chunk_rows: int) -> None:
    """Write a block of spots, a vocabulary with its means, and a large table."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = draw_counts(N_BLOCK)
    block = anndata.AnnData(counts)
    block.var_names = stp.Vocabulary.default().gene_ids[: counts.shape[1]]
    block.write_h5ad(folder / "block.h5ad")
    stp.Vocabulary.default().fit(block).save(folder / "vocabulary.parquet")
    parts = [draw_rows(counts, seed, chunk_rows) for seed in range(N_CHUNKS)]
    large = anndata.AnnData(sp.vstack(parts, format="csr"))
    large.var_names = block.var_names
    large.write_h5ad(folder / "counts.h5ad")


def measure_backed(folder: Path, chunk_rows: int) -> Row:
    """Tokenize a backed h5ad; its result stays in memory."""
    silence_logger()
    adata = anndata.read_h5ad(folder / "counts.h5ad", backed="r")
    vocabulary = stp.Vocabulary.load(folder / "vocabulary.parquet")
    stp.tl.tokenize(adata[:300].to_memory(), vocabulary)  # compiles and imports
    before = process_kb("VmHWM")
    stp.tl.tokenize(adata, vocabulary)
    growth = (process_kb("VmHWM") - before) / 1024
    result = adata.obsm["stp_tokens"].nbytes / 2**20
    chunk = _megabytes(adata[:chunk_rows].to_memory().X)
    n_chunks = round((growth - result) / chunk, 1)
    return {
        "measured": f"memory of a backed h5ad, {adata.n_obs:,} spots",
        "growth, MB": round(growth),
        "of it the result, MB": round(result),
        "chunk of counts, MB": round(chunk),
        "result": n_chunks,
        "unit": "chunks, without the result",
        **at_most(MAX_CHUNKS, n_chunks),
    }


def measure_dask(folder: Path, n_chunks: int, chunk_rows: int) -> Row:
    """Tokenize chunk by chunk into a zarr array; nothing stays in memory."""
    silence_logger()
    block = anndata.read_h5ad(folder / "block.h5ad")
    vocabulary = stp.Vocabulary.load(folder / "vocabulary.parquet")
    stp.tl.tokenize(block[:300].copy(), vocabulary)  # compiles and imports
    adata = anndata.AnnData(make_lazy_counts(block.X, n_chunks, chunk_rows), var=block.var)
    chunk = _megabytes(draw_rows(block.X, 0, chunk_rows))
    target = folder / f"tokens_{n_chunks}.zarr"
    shutil.rmtree(target, ignore_errors=True)
    with dask.config.set(scheduler="synchronous"):
        before = process_kb("VmHWM")
        stp.tl.tokenize(adata, vocabulary)
        dask.array.to_zarr(adata.obsm["stp_tokens"], str(target))
    growth = (process_kb("VmHWM") - before) / 1024
    ratio = round(growth / chunk, 1)
    return {
        "measured": f"memory of Dask, tokens written to zarr, {adata.n_obs:,} spots",
        "growth, MB": round(growth),
        "chunk of counts, MB": round(chunk),
        "result": ratio,
        "unit": "chunks",
        **at_most(MAX_CHUNKS, ratio),
    }


def _megabytes(counts: sp.csr_matrix) -> float:
    return (counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes) / 2**20


def compare_padding(data: Path) -> Iterator[Row]:
    """Compare the stored bytes of padded tokens with those of the same tokens without padding."""
    sections = [anndata.read_h5ad(path) for path in sorted(data.glob("[CF][1-3].h5ad"))]
    vocabulary = stp.Vocabulary.default().fit(sections)
    for share in (1.0, 0.3, 0.1):
        padded = np.concatenate([_tokens_of_some(adata, vocabulary, share) for adata in sections])
        n_tokens = (padded > 0).sum(axis=1).mean()
        for version in (2, 3):
            stored = _stored_bytes(padded, version)
            unpadded = _stored_bytes(padded[padded > 0], version)
            extra = round(stored / unpadded - 1, 4)
            yield {
                "measured": f"storage, zarr v{version}, {n_tokens:.0f} tokens per spot",
                "result": extra,
                "unit": "share that padding adds",
                **at_most(MAX_PADDING, extra),
            }


def _tokens_of_some(adata: anndata.AnnData, vocabulary: stp.Vocabulary, share: float) -> np.ndarray:
    """Return tokens of spots of which a share of the counts is kept."""
    thinned = adata.X.copy()
    rng = np.random.default_rng(0)
    thinned.data = rng.binomial(adata.X.data.astype(int), share).astype(np.float32)
    adata.layers["thinned"] = thinned
    stp.tl.tokenize(adata, vocabulary, layer="thinned")
    return adata.obsm["stp_tokens"]


def _stored_bytes(tokens: np.ndarray, version: int) -> int:
    """Return the bytes of an array as `write_zarr` and `stp.io.write_results` store it."""
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=version)
    anndata.io.write_elem(group, "tokens", tokens)
    return group["tokens"].nbytes_stored()


def main(arguments: list[str] | None = None) -> list[Row]:
    """Make the tables, measure each way; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder for tables and tokens")
    parser.add_argument("--data", type=Path, help="folder of HER2+ sections, for padding")
    parser.add_argument("--chunk-rows", type=int, default=4096, help="spots of a chunk")
    parser.add_argument("--spots", type=int, default=10**6, help="spots of the largest table")
    options = parser.parse_args(arguments)
    silence_logger()
    folder = options.folder
    chunk_rows = options.chunk_rows
    write_tables(folder, chunk_rows)
    rows = [in_new_process(measure_backed, folder, chunk_rows)]
    for n_chunks in (N_CHUNKS, options.spots // chunk_rows):
        rows.append(in_new_process(measure_dask, folder, n_chunks, chunk_rows))
    if options.data:
        rows += compare_padding(options.data)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
