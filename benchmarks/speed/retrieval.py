"""Exact retrieval beside a bare matrix product and FAISS, and weighted averages beside a loop over queries.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --disk /tmp/references.npy --references 2000000   # what does not fit: writes 4 GB

Every figure is a ratio within one run, the median of several interleaved repeats; what is found is compared with
float64. Needs faiss-cpu, which stp does not.
"""

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numba
import numpy as np

from stp.retrieval.nearest import Average, nearest, weights

N_QUERIES, N_REFERENCES, WIDTH, K = 2_000, 100_000, 512, 50
N_PROFILES, N_GENES, ROWS = 20_000, 2_000, 1_024
BLOCK = 4096  # references multiplied at a time, from disk
CHECKED = 100  # queries compared with float64


def unit(n: int, seed: int) -> np.ndarray:
    """Draw unit vectors (n, WIDTH)."""
    vectors = np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def medians(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time each in turn, several times; the first round, which compiles and allocates, does not count."""
    seconds = {name: [] for name in work}
    for i in range(repeats + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def search(repeats: int) -> None:
    """Time retrieval, and compare what is found."""
    queries, references = unit(N_QUERIES, 0), unit(N_REFERENCES, 1)
    scores = np.empty((N_QUERIES, N_REFERENCES), np.float32)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(references)
    found = nearest(queries, references, K).index
    exact = queries[:CHECKED].astype(np.float64) @ references.T.astype(np.float64)
    right = (found[:CHECKED] == np.argsort(-exact, axis=1, kind="stable")[:, :K]).all()
    theirs = index.search(queries, K)[1]
    same = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, theirs, strict=True)])
    took = medians(
        {
            "product": lambda: np.matmul(queries, references.T, out=scores),
            "faiss": lambda: index.search(queries, K),
            "nearest": lambda: nearest(queries, references, K),
        },
        repeats,
    )
    print(f"{N_QUERIES} queries, {N_REFERENCES} references of width {WIDTH}, {K} neighbors")
    print({name: round(value, 3) for name, value in took.items()})
    print(f"as float64 and ties by index: {right}; shared with FAISS: {same:.6f}")
    ratios = took["nearest"] / took["product"], took["faiss"] / took["nearest"]
    print(f"nearest / product {ratios[0]:.2f}, FAISS / nearest {ratios[1]:.2f}")


def average(repeats: int) -> None:
    """Time weighted averages, with their spread, and compare the means."""
    rng = np.random.default_rng(2)
    profiles = np.log1p(rng.poisson(0.3, size=(N_PROFILES, N_GENES))).astype(np.float32)
    index = rng.integers(0, N_PROFILES, size=(N_QUERIES, K))
    weight, _ = weights(rng.random((N_QUERIES, K), dtype=np.float32))

    def loop() -> np.ndarray:
        return np.array(
            [np.average(profiles[i], axis=0, weights=w) for i, w in zip(index, weight, strict=True)]
        )

    def ours() -> np.ndarray:
        averages = Average(index, weight, N_GENES)
        rows = averages.rows
        for start in range(0, len(rows), ROWS):
            averages.add(rows[start : start + ROWS], profiles[rows[start : start + ROWS]])
        return averages.mean

    error = np.abs(ours() - loop()).max()
    took = medians({"loop": loop, "average": ours}, repeats)
    print(
        f"{N_QUERIES} averages of {K} profiles of {N_GENES} genes, largest difference {error:.1e}"
    )
    print(
        {name: round(value, 3) for name, value in took.items()},
        f"loop / average {took['loop'] / took['average']:.2f}",
    )


def from_disk(file: Path, n: int, repeats: int) -> None:
    """Time retrieval from a file that is mapped, beside the products of its blocks, and watch memory of the process."""
    references = write(file, n)
    queries, scores = unit(N_QUERIES, 0), np.empty((N_QUERIES, BLOCK), np.float32)

    def product() -> None:
        for start in range(0, n, BLOCK):
            block = references[start : start + BLOCK]
            np.matmul(queries, block.T, out=scores[:, : len(block)])

    nearest(queries, references[:BLOCK], K)  # compiles
    before, seen, done = anonymous_mb(), [], threading.Event()
    watch = threading.Thread(
        target=lambda: [seen.append(anonymous_mb()) for _ in iter(lambda: done.wait(0.05), True)]
    )
    watch.start()
    start = time.perf_counter()
    found = nearest(queries, references, K)
    first = time.perf_counter() - start
    done.set()
    watch.join()
    took = medians(
        {"product": product, "nearest": lambda: nearest(queries, references, K)}, repeats
    )
    best = np.einsum("qd,qd->q", queries[:CHECKED], references[found.index[:CHECKED, 0]])
    assert np.allclose(best, found.similarity[:CHECKED, 0], atol=1e-5)
    print(
        f"{N_QUERIES} queries, {n} references on disk ({file.stat().st_size / 1e9:.1f} GB); first {first:.1f} s"
    )
    print(
        {name: round(value, 2) for name, value in took.items()},
        f"ratio {took['nearest'] / took['product']:.2f}",
    )
    print(f"memory of its own at most {max(seen) - before:.0f} MB beyond what it was called with")


def write(file: Path, n: int) -> np.ndarray:
    """Write n unit vectors, unless they are there; returns them mapped."""
    if not file.exists():
        mapped = np.lib.format.open_memmap(file, "w+", np.float32, (n, WIDTH))
        for start in range(0, n, 2**16):
            mapped[start : start + 2**16] = unit(min(2**16, n - start), start + 1)
    return np.load(file, mmap_mode="r")


def anonymous_mb() -> float:
    """Memory of this process that is no mapped file."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--disk", type=Path, help="file of references that are not read into memory"
    )
    parser.add_argument("--references", type=int, default=2_000_000, help="of that file")
    asked = parser.parse_args()
    print(
        f"{numba.config.NUMBA_NUM_THREADS} threads, faiss {faiss.__version__}, numpy {np.__version__}"
    )
    if asked.disk:
        from_disk(asked.disk, asked.references, asked.repeats)
    else:
        search(asked.repeats)
        average(asked.repeats)
