"""The tokenizer beside the plain loop over a CSR, in one process and interleaved; then threads, verbs and memory.

    python -m benchmarks.tokenize --data ../shared/data/her2st

Every figure is a ratio within one run, the median of several. Tokens are compared at each run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numba
import numpy as np
import scipy.sparse as sp

import stp
from stp.genes.rank_kernel import rank_table
from stp.genes.tokens import rank_genes

CONTEXT, N_SPECIAL = 1500, 30


def plain(counts: sp.csr_matrix, divisors: np.ndarray) -> np.ndarray:
    """Tokenize as one writes it down: scale the nonzeros, then argsort spot by spot; ties fall as they fall."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    data = (
        counts.data
        * np.repeat((1e4 / total).astype(np.float32), np.diff(counts.indptr))
        / divisors[counts.indices]
    )
    tokens = np.zeros((counts.shape[0], CONTEXT), np.int32)
    for row in range(counts.shape[0]):
        spot = slice(counts.indptr[row], counts.indptr[row + 1])
        order = np.argsort(-data[spot])[:CONTEXT]
        tokens[row, : len(order)] = counts.indices[spot][order] + N_SPECIAL
    return tokens


def exact(counts: sp.csr_matrix, divisors: np.ndarray) -> np.ndarray:
    """Tokenize slowly, with ties by index: what the kernel must give."""
    tokens = np.zeros((counts.shape[0], CONTEXT), np.uint16)
    for row in range(counts.shape[0]):
        spot = slice(counts.indptr[row], counts.indptr[row + 1])
        genes = counts.indices[spot]
        order = np.lexsort((genes, -counts.data[spot].astype(float) / divisors[genes]))[:CONTEXT]
        tokens[row, : len(order)] = genes[order] + N_SPECIAL
    return tokens


def synthetic(n_spots: int, seed: int = 0) -> sp.csr_matrix:
    """Draw Visium-like counts: about 3,300 of 19,456 genes per spot, most of them once."""
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(-3, 2.2, 19_456)
    rows = []
    for depth in rng.lognormal(0, 0.35, n_spots) * 12_000 / rate.sum():
        rows.append(
            sp.csr_matrix(
                rng.poisson(rate * depth * rng.gamma(2, 0.5, len(rate))).astype(np.float32)
            )
        )
    return sp.vstack(rows, format="csr")


def fitted(counts: sp.csr_matrix) -> np.ndarray:
    """Mean of each gene over the spots that detect it."""
    total, detected = np.asarray(counts.sum(axis=0)).ravel(), counts.getnnz(axis=0)
    return np.where(total > 0, total / np.maximum(detected, 1), 1.0)


def interleave(runs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Time functions in turn; median seconds of each."""
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def compare(counts: sp.csr_matrix, repeats: int) -> dict[str, dict]:
    """Compare kernel and loop, one thread, for rounded and for fitted means."""
    numba.config.NUMBA_NUM_THREADS = 1
    means = fitted(counts)
    index = np.arange(counts.shape[1])
    results = {}
    for kind, divisors in {
        "rounded": np.maximum(np.floor(means + 0.5), 1),
        "fitted": means,
    }.items():
        table = rank_table(divisors)

        def kernel(table=table):
            return rank_genes(
                counts, index, table, context_length=CONTEXT, n_special=N_SPECIAL
            ).tokens

        assert np.array_equal(kernel(), exact(counts, divisors))
        runs = {"plain": lambda divisors=divisors: plain(counts, divisors), "kernel": kernel}
        seconds = interleave(
            runs | {"table": lambda divisors=divisors: rank_table(divisors)}, repeats
        )
        spot = {name: round(1e6 * value / counts.shape[0], 1) for name, value in seconds.items()}
        results[kind] = {
            "us_per_spot": spot,
            "ratio": round(seconds["plain"] / seconds["kernel"], 2),
        }
    return results


def section(path: Path) -> tuple[anndata.AnnData, sp.csr_matrix]:
    """Read a section, and its counts in the order of the vocabulary."""
    adata = anndata.read_h5ad(path)
    index = stp.Vocabulary.default().encode(adata.var_names)
    kept = np.flatnonzero(index >= 0)
    to_gene = sp.csr_matrix(
        (np.ones(len(kept), np.float32), (kept, index[kept])), (len(index), index.max() + 1)
    )
    counts = (adata.X @ to_gene).tocsr()
    counts.sort_indices()
    return adata, counts


def threads(counts: sp.csr_matrix, repeats: int) -> dict[int, float]:
    """Speed-up of the kernel with more threads."""
    table, index = rank_table(fitted(counts)), np.arange(counts.shape[1])
    seconds = {}
    for n in range(1, (os.cpu_count() or 1) + 1):
        numba.config.NUMBA_NUM_THREADS = n
        run = {
            "kernel": lambda: rank_genes(
                counts, index, table, context_length=CONTEXT, n_special=N_SPECIAL
            )
        }
        seconds[n] = interleave(run, repeats)["kernel"]
    return {n: round(seconds[1] / value, 2) for n, value in seconds.items()}


def overhead(counts: sp.csr_matrix, repeats: int) -> float:
    """Time of `tl.tokenize` over that of the kernel, one thread."""
    numba.config.NUMBA_NUM_THREADS = 1
    ids = stp.Vocabulary.default().gene_ids[: counts.shape[1]]
    adata = anndata.AnnData(counts)
    adata.var_names = ids
    vocabulary = stp.Vocabulary.default().fit(adata)
    table, index = rank_table(vocabulary.divisors()), vocabulary.encode(ids)
    runs = {
        "kernel": lambda: rank_genes(
            counts, index, table, context_length=CONTEXT, n_special=N_SPECIAL
        ),
        "verb": lambda: stp.tl.tokenize(adata, vocabulary),
    }
    seconds = interleave(runs, repeats)
    return round(seconds["verb"] / seconds["kernel"], 2)


def main(arguments: list[str] | None = None) -> dict:
    """Run all comparisons; prints and returns the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder of h5ad files: compare on sections C4, D1 and F1 too"
    )
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--spots", type=int, default=1000, help="of the synthetic table")
    parser.add_argument(
        "--kernel-only", action="store_true", help="skip threads, the verb and the run without SIMD"
    )
    options = parser.parse_args(arguments)
    stp.tl  # noqa: B018 - so that the logger is there to be hushed
    stp._log.logger.setLevel("WARNING")
    counts = synthetic(options.spots)
    results = {"synthetic": compare(counts, options.repeats)}
    for name in ("C4", "D1", "F1") if options.data else ():
        results[name] = compare(section(options.data / f"{name}.h5ad")[1], options.repeats)
    if not options.kernel_only:
        results["speed-up by threads"] = threads(counts, options.repeats)
        results["verb / kernel"] = overhead(sp.vstack([counts] * 10, format="csr"), 5)
        results["without SIMD"] = without_simd(sys.argv[1:] if arguments is None else arguments)
    print(json.dumps(results, indent=2))
    return results


def without_simd(arguments: list[str]) -> dict:
    """Run the comparison of kernels again with numpy's SIMD off."""
    found = np._core._multiarray_umath.__cpu_dispatch__
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.tokenize",
        *arguments,
        "--kernel-only",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout[done.stdout.index("{") :])


if __name__ == "__main__":
    main()
