"""Exact retrieval beside a bare matrix product and FAISS, and weighted averages beside a loop over queries.

    python -m benchmarks.retrieval

Every figure is a ratio within one run, the median of several interleaved repeats; what is found is compared with
float64. Needs faiss-cpu, which stp does not.
"""

import argparse
import time
from collections.abc import Callable

import faiss
import numba
import numpy as np

from stp.retrieval import Average, nearest, weights

N_QUERIES, N_REFERENCES, WIDTH, K = 2_000, 100_000, 512, 50
N_PROFILES, N_GENES, ROWS = 20_000, 2_000, 1_024
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
        return np.array([np.average(profiles[i], axis=0, weights=w) for i, w in zip(index, weight, strict=True)])

    def ours() -> np.ndarray:
        averages = Average(index, weight, N_GENES)
        rows = averages.rows
        for start in range(0, len(rows), ROWS):
            averages.add(rows[start : start + ROWS], profiles[rows[start : start + ROWS]])
        return averages.mean

    error = np.abs(ours() - loop()).max()
    took = medians({"loop": loop, "average": ours}, repeats)
    print(f"{N_QUERIES} averages of {K} profiles of {N_GENES} genes, largest difference {error:.1e}")
    print(
        {name: round(value, 3) for name, value in took.items()}, f"loop / average {took['loop'] / took['average']:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(f"{numba.get_num_threads()} threads, faiss {faiss.__version__}, numpy {np.__version__}")
    search(asked.repeats)
    average(asked.repeats)
