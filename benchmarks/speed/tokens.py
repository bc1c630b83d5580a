"""How fast are tokens made? The kernel next to a plain loop over the spots, in one process.

    python -m benchmarks.speed.tokens --data ../shared/data/her2st --out tokens.json

Every ratio is of one run, the median of interleaved repeats. Tokens are compared with a slow exact
form each time. Then more threads, the verb `tl.tokenize`, and the kernels again without numpy's
SIMD.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numba
import numpy as np
import scipy.sparse as sp

import stp
from benchmarks.measure import Row, at_least, interleave, make_parser, silence_logger, write_results
from stp.genes.rank_table import RankTable, rank_table
from stp.genes.tokens import rank_genes

CONTEXT_LENGTH = 1500
N_SPECIAL = 30
SECTIONS = ("C4", "D1", "F1")
GOALS = {"rounded": 8.0, "fitted": 5.0}
GOALS_WITHOUT_SIMD = {"rounded": 5.0, "fitted": 1.5}
SWITCH = "NPY_DISABLE_CPU_FEATURES"  # numpy reads it when it is imported


def tokenize_plainly(counts: sp.csr_matrix, means: np.ndarray) -> np.ndarray:
    """Tokenize in the plain way: scale the nonzeros, then sort each spot; ties are not ordered."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    factor = np.repeat((1e4 / total).astype(np.float32), np.diff(counts.indptr))
    data = counts.data * factor / means[counts.indices]
    tokens = np.zeros((counts.shape[0], CONTEXT_LENGTH), np.int32)
    for row in range(counts.shape[0]):
        spot = slice(counts.indptr[row], counts.indptr[row + 1])
        order = np.argsort(-data[spot])[:CONTEXT_LENGTH]
        tokens[row, : len(order)] = counts.indices[spot][order] + N_SPECIAL
    return tokens


def tokenize_exactly(counts: sp.csr_matrix, means: np.ndarray) -> np.ndarray:
    """Tokenize slowly, with ties in the order of the vocabulary: what the kernel must give."""
    tokens = np.zeros((counts.shape[0], CONTEXT_LENGTH), np.uint16)
    for row in range(counts.shape[0]):
        spot = slice(counts.indptr[row], counts.indptr[row + 1])
        genes = counts.indices[spot]
        scaled = counts.data[spot].astype(float) / means[genes]
        order = np.lexsort((genes, -scaled))[:CONTEXT_LENGTH]
        tokens[row, : len(order)] = genes[order] + N_SPECIAL
    return tokens


def rank(counts: sp.csr_matrix, index: np.ndarray, table: RankTable) -> np.ndarray:
    """Tokenize by the kernel."""
    ranked = rank_genes(counts, index, table, context_length=CONTEXT_LENGTH, n_special=N_SPECIAL)
    return ranked.tokens


def draw_counts(n_spots: int, seed: int = 0) -> sp.csr_matrix:
    """Draw Visium-like counts: about 3,300 of 19,456 genes per spot, most of them once."""
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(-3, 2.2, 19_456)
    rows = []
    for depth in rng.lognormal(0, 0.35, n_spots) * 12_000 / rate.sum():
        counts = rng.poisson(rate * depth * rng.gamma(2, 0.5, len(rate)))
        rows.append(sp.csr_matrix(counts.astype(np.float32)))
    return sp.vstack(rows, format="csr")


def mean_where_detected(counts: sp.csr_matrix) -> np.ndarray:
    """Return the mean of each gene over the spots that detect it."""
    total = np.asarray(counts.sum(axis=0)).ravel()
    n_detected = counts.getnnz(axis=0)
    return np.where(total > 0, total / np.maximum(n_detected, 1), 1.0)


def read_section(path: Path) -> sp.csr_matrix:
    """Read the counts of a section, in the order of the vocabulary."""
    adata = anndata.read_h5ad(path)
    index = stp.Vocabulary.default().encode(adata.var_names)
    columns = np.flatnonzero(index >= 0)
    ones = np.ones(len(columns), np.float32)
    to_gene = sp.csr_matrix((ones, (columns, index[columns])), (len(index), index.max() + 1))
    counts = (adata.X @ to_gene).tocsr()
    counts.sort_indices()
    return counts


def compare(name: str, counts: sp.csr_matrix, repeats: int) -> Iterator[Row]:
    """Compare kernel and loop on one thread, for rounded and for fitted means."""
    numba.config.NUMBA_NUM_THREADS = 1
    has_simd = SWITCH not in os.environ
    goals = GOALS if has_simd else GOALS_WITHOUT_SIMD
    fitted = mean_where_detected(counts)
    rounded = np.maximum(np.floor(fitted + 0.5), 1)
    for kind, means in {"rounded": rounded, "fitted": fitted}.items():
        seconds = interleave(_runs(counts, means), repeats)
        ratio = round(seconds["loop"] / seconds["kernel"], 2)
        yield {
            "measured": f"{name}, {kind} means" + ("" if has_simd else ", no SIMD"),
            "loop, µs per spot": round(1e6 * seconds["loop"] / counts.shape[0], 1),
            "kernel, µs per spot": round(1e6 * seconds["kernel"] / counts.shape[0], 1),
            "result": ratio,
            "unit": "loop / kernel",
            **at_least(goals[kind], ratio),
        }


def _runs(counts: sp.csr_matrix, means: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return loop and kernel, after a check that the kernel is right."""
    index = np.arange(counts.shape[1])
    table = rank_table(means)
    if not np.array_equal(rank(counts, index, table), tokenize_exactly(counts, means)):
        raise RuntimeError("tokens of the kernel differ from those of the slow exact form")
    return {
        "loop": lambda: tokenize_plainly(counts, means),
        "kernel": lambda: rank(counts, index, table),
    }


def compare_threads(counts: sp.csr_matrix, repeats: int) -> Iterator[Row]:
    """Return how much faster the kernel is with more threads."""
    table = rank_table(mean_where_detected(counts))
    index = np.arange(counts.shape[1])
    alone = 0.0
    for n_threads in range(1, (os.cpu_count() or 1) + 1):
        numba.config.NUMBA_NUM_THREADS = n_threads
        run = {"kernel": lambda: rank(counts, index, table)}
        seconds = interleave(run, repeats)["kernel"]
        if n_threads == 1:
            alone = seconds
            continue
        speedup = round(alone / seconds, 2)
        row = {"measured": f"{n_threads} threads", "result": speedup, "unit": "times one thread"}
        yield row | at_least(0.8 * n_threads, speedup)


def compare_verb(counts: sp.csr_matrix, repeats: int) -> Row:
    """Return the time of `tl.tokenize` relative to the kernel, on one thread."""
    numba.config.NUMBA_NUM_THREADS = 1
    gene_ids = stp.Vocabulary.default().gene_ids[: counts.shape[1]]
    adata = anndata.AnnData(counts)
    adata.var_names = gene_ids
    vocabulary = stp.Vocabulary.default().fit(adata)
    table = rank_table(vocabulary.divisors())
    index = vocabulary.encode(gene_ids)
    runs = {
        "kernel": lambda: rank(counts, index, table),
        "verb": lambda: stp.tl.tokenize(adata, vocabulary),
    }
    seconds = interleave(runs, repeats)
    return {
        "measured": f"tl.tokenize on {counts.shape[0]:,} spots",
        "result": round(seconds["verb"] / seconds["kernel"], 2),
        "unit": "times the kernel",
    }


def compare_without_simd(options: argparse.Namespace) -> list[Row]:
    """Compare kernel and loop again in a process in which numpy uses no SIMD."""
    features = np._core._multiarray_umath.__cpu_dispatch__
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "without_simd.json"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.tokens"]
        command += ["--kernel-only", "--out", str(out)]
        command += ["--repeats", str(options.repeats), "--spots", str(options.spots)]
        if options.data:
            command += ["--data", str(options.data)]
        environment = {**os.environ, SWITCH: " ".join(features)}
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(out.read_text())["values"]


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run all comparisons; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder of h5ad files with C4, D1 and F1")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--spots", type=int, default=1000, help="spots of the synthetic table")
    parser.add_argument(
        "--kernel-only", action="store_true", help="skip threads, the verb and the run without SIMD"
    )
    options = parser.parse_args(arguments)
    silence_logger()
    counts = draw_counts(options.spots)
    rows = list(compare(f"synthetic, {options.spots:,} spots", counts, options.repeats))
    for name in SECTIONS if options.data else ():
        rows += compare(name, read_section(options.data / f"{name}.h5ad"), options.repeats)
    if not options.kernel_only:
        rows += compare_without_simd(options)
        rows += compare_threads(counts, options.repeats)
        rows.append(compare_verb(sp.vstack([counts] * 10, format="csr"), 5))
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
