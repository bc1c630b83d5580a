"""Memory and storage of tokens: backed files, Dask, a million spots, and what padding costs.

    python -m benchmarks.tokenize_memory --out results/tokens --data ../shared/data/her2st

Every measurement runs in a process of its own; growth is that of its peak resident memory while it tokenizes.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import dask.array
import numpy as np
import scipy.sparse as sp
import zarr

import stp
from benchmarks.tokenize import synthetic

CHUNK = 4096  # rows of a block or chunk
SPOTS = 10 * CHUNK


def peak() -> float:
    """Peak resident memory of this process so far, MB; Linux alone tells it without that of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def rows(block: sp.csr_matrix, seed: int, n_rows: int = CHUNK) -> sp.csr_matrix:
    """Draw rows of a table, with replacement."""
    return block[np.random.default_rng(seed).integers(0, block.shape[0], n_rows)]


def lazy(block: sp.csr_matrix, n_spots: int) -> dask.array.Array:
    """Chunks of counts that are made when they are asked for."""
    n_chunks = n_spots // CHUNK
    seeds = dask.array.arange(n_chunks, chunks=1)
    meta = sp.csr_matrix((0, 0), dtype=np.float32)
    chunks = ((CHUNK,) * n_chunks, (block.shape[1],))
    return seeds.map_blocks(
        lambda seed: rows(block, int(seed[0])),
        chunks=chunks,
        new_axis=1,
        dtype=np.float32,
        meta=meta,
    )


def backed(out: Path) -> dict[str, float]:
    """Tokenize a backed h5ad; its result stays in memory."""
    adata = anndata.read_h5ad(out / "counts.h5ad", backed="r")
    vocabulary = stp.Vocabulary.load(out / "vocabulary.parquet")
    stp.tl.tokenize(
        adata[:300].to_memory(), vocabulary
    )  # compiled and imported before it is measured
    before = peak()
    stp.tl.tokenize(adata, vocabulary)
    grown = peak() - before
    return {
        "grown": grown,
        "result": adata.obsm["stp_tokens"].nbytes / 2**20,
        "chunk": _chunk(adata[:CHUNK]),
    }


def with_dask(out: Path, n_spots: int = SPOTS) -> dict[str, float]:
    """Tokenize chunk by chunk into a zarr array; nothing stays in memory."""
    block = anndata.read_h5ad(out / "block.h5ad")
    vocabulary = stp.Vocabulary.load(out / "vocabulary.parquet")
    stp.tl.tokenize(block[:300].copy(), vocabulary)
    adata = anndata.AnnData(lazy(block.X, n_spots), var=block.var)
    chunk = _chunk(anndata.AnnData(rows(block.X, 0)))
    target = out / f"tokens_{n_spots}.zarr"
    shutil.rmtree(target, ignore_errors=True)
    with dask.config.set(scheduler="synchronous"):
        before = peak()
        stp.tl.tokenize(adata, vocabulary)
        dask.array.to_zarr(adata.obsm["stp_tokens"], str(target))
    return {"grown": peak() - before, "spots": adata.n_obs, "chunk": chunk}


def _chunk(adata: anndata.AnnData) -> float:
    """MB of a chunk of counts."""
    X = adata.to_memory().X if adata.isbacked else adata.X
    return (X.data.nbytes + X.indices.nbytes + X.indptr.nbytes) / 2**20


def million(out: Path) -> dict[str, float]:
    """Tokenize a million spots."""
    return with_dask(out, 10**6 // CHUNK * CHUNK)


def padding(data: Path) -> dict[str, dict]:
    """Compare the bytes of padded tokens with those of the same tokens cut, as anndata writes them to zarr."""
    sections = [anndata.read_h5ad(path) for path in sorted(data.glob("[CF][1-3].h5ad"))]
    vocabulary = stp.Vocabulary.default().fit(sections)
    shares = {}
    for thinned in (1.0, 0.3, 0.1):
        tokens = []
        for adata in sections:
            rng = np.random.default_rng(0)
            adata.layers["thin"] = adata.X.copy()
            adata.layers["thin"].data = rng.binomial(adata.X.data.astype(int), thinned).astype(
                np.float32
            )
            stp.tl.tokenize(adata, vocabulary, layer="thin")
            tokens.append(adata.obsm["stp_tokens"])
        padded = np.concatenate(tokens)
        cut = padded[padded > 0]
        name = f"{(padded > 0).sum(axis=1).mean():.0f} tokens per spot"
        shares[name] = {
            f"zarr v{v}": round(_stored(padded, v) / _stored(cut, v) - 1, 4) for v in (2, 3)
        }
    return shares


def _stored(tokens: np.ndarray, version: int) -> int:
    """Bytes of an array that anndata wrote, as `write_zarr` and `stp.io.write_results` do."""
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=version)
    anndata.io.write_elem(group, "tokens", tokens)
    return group["tokens"].nbytes_stored()


def main() -> None:
    """Make the tables, measure each way in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and tokens")
    parser.add_argument(
        "--data", type=Path, help="folder of HER2+ sections, for the cost of padding"
    )
    parser.add_argument("--only", choices=["backed", "with_dask", "million"])
    options = parser.parse_args()
    stp.tl  # noqa: B018 - so that the logger is there to be hushed
    stp._log.logger.setLevel("WARNING")
    if options.only:
        print(json.dumps(globals()[options.only](options.out)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    counts = synthetic(1000)
    block = anndata.AnnData(counts)
    block.var_names = stp.Vocabulary.default().gene_ids[: counts.shape[1]]
    block.write_h5ad(options.out / "block.h5ad")
    stp.Vocabulary.default().fit(block).save(options.out / "vocabulary.parquet")
    many = anndata.AnnData(
        sp.vstack([rows(counts, seed) for seed in range(SPOTS // CHUNK)], format="csr")
    )
    many.var_names = block.var_names
    many.write_h5ad(options.out / "counts.h5ad")
    results = {}
    for way in ("backed", "with_dask", "million"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.tokenize_memory",
            "--out",
            str(options.out),
            "--only",
            way,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[way] = json.loads(done.stdout.splitlines()[-1])
    if options.data:
        results["padding"] = padding(options.data)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
