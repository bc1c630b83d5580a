"""How fast is exact retrieval? Next to a bare matrix product, `torch.topk` in blocks, and FAISS.

    python -m benchmarks.speed.retrieval
    python -m benchmarks.speed.retrieval --disk references.npy --references 2000000

Then weighted means, next to a loop over queries and to `embedding_bag` of torch. The second command
retrieves from a file that does not fit into memory, and writes its 4 GB first. Every ratio is of
one run, the median of interleaved repeats; what is retrieved is compared with float64. FAISS is
compared if `faiss-cpu` is installed, which `stp` does not need.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import (
    Row,
    anonymous_growth,
    at_least,
    at_most,
    interleave,
    make_parser,
    write_results,
)
from benchmarks.speed.torch_search import nearest_by_topk
from stp.retrieval.nearest import WeightedMeans, nearest, weights

N_PROFILES = 20_000
N_GENES = 2_000
ROWS = 1_024  # profiles added at a time
BLOCK = 4096  # references multiplied at a time, from disk
N_CHECKED = 100  # queries compared with float64
MAX_PRODUCTS = 1.4
MIN_FAISS = 2.0
MIN_LOOP = 3.0
MAX_MEGABYTES = 100.0


def draw_unit_vectors(n: int, width: int, seed: int) -> np.ndarray:
    """Draw vectors (n, width) of length one."""
    vectors = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Size(NamedTuple):
    """Number of queries and references, their width, and the neighbors of a query."""

    n_queries: int
    n_references: int
    width: int
    k: int


def compare_search(size: Size, repeats: int) -> Iterator[Row]:
    """Compare the time of several ways to retrieve, after a check that they agree."""
    k = size.k
    queries = draw_unit_vectors(size.n_queries, size.width, 0)
    references = draw_unit_vectors(size.n_references, size.width, 1)
    scores = np.empty((size.n_queries, size.n_references), np.float32)
    runs: dict[str, Callable[[], object]] = {
        "product": lambda: np.matmul(queries, references.T, out=scores),
        "ours": lambda: nearest(queries, references, k),
        "torch": lambda: nearest_by_topk(queries, references, k),
    }
    check(queries, references, nearest(queries, references, k).index)
    check(queries, references, nearest_by_topk(queries, references, k))
    if importlib.util.find_spec("faiss"):
        import faiss  # a peer

        flat = faiss.IndexFlatIP(size.width)
        flat.add(references)
        runs["faiss"] = lambda: flat.search(queries, k)
    seconds = interleave(runs, repeats, warm_up=1)
    case = f"{size.n_references:,} references"
    ratio = round(seconds["ours"] / seconds["product"], 2)
    yield {
        "measured": f"{case}, ours",
        "product, s": round(seconds["product"], 3),
        "time, s": round(seconds["ours"], 3),
        "result": ratio,
        "unit": "times the product",
        **at_most(MAX_PRODUCTS, ratio),
    }
    torch_ratio = round(seconds["torch"] / seconds["ours"], 2)
    yield {
        "measured": f"{case}, torch.topk in blocks",
        "time, s": round(seconds["torch"], 3),
        "result": torch_ratio,
        "unit": "times ours",
    }
    if "faiss" in seconds:
        faiss_ratio = round(seconds["faiss"] / seconds["ours"], 2)
        yield {
            "measured": f"{case}, FAISS IndexFlatIP",
            "time, s": round(seconds["faiss"], 3),
            "result": faiss_ratio,
            "unit": "times ours",
            **at_least(MIN_FAISS, faiss_ratio),
        }


def check(queries: np.ndarray, references: np.ndarray, index: np.ndarray) -> None:
    """Raise RuntimeError unless some queries have the references of float64, ties by index."""
    exact = queries[:N_CHECKED].astype(np.float64) @ references.T.astype(np.float64)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, : index.shape[1]]
    if not np.array_equal(index[:N_CHECKED], expected):
        raise RuntimeError("what is retrieved differs from float64")


def compare_means(n_queries: int, k: int, repeats: int) -> Iterator[Row]:
    """Compare the time of weighted means; ours compute their spread, too."""
    rng = np.random.default_rng(2)
    profiles = np.log1p(rng.poisson(0.3, size=(N_PROFILES, N_GENES))).astype(np.float32)
    index = rng.integers(0, N_PROFILES, size=(n_queries, k))
    weight, _ = weights(rng.random((n_queries, k), dtype=np.float32))
    index_tensor = torch.from_numpy(index)
    weight_tensor = torch.from_numpy(weight).float()
    profile_tensor = torch.from_numpy(profiles)

    def loop() -> np.ndarray:
        means = []
        for rows, of_rows in zip(index, weight, strict=True):
            means.append(np.average(profiles[rows], axis=0, weights=of_rows))
        return np.array(means)

    def ours() -> np.ndarray:
        means = WeightedMeans(index, weight, N_GENES)
        rows = means.rows
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            means.add(part, profiles[part])
        return means.mean

    def bag() -> np.ndarray:
        means = F.embedding_bag(
            index_tensor, profile_tensor, mode="sum", per_sample_weights=weight_tensor
        )
        return means.numpy()

    expected = loop()
    for means in (ours(), bag()):
        np.testing.assert_allclose(means, expected, atol=1e-5)
    seconds = interleave({"loop": loop, "ours": ours, "bag": bag}, repeats, warm_up=1)
    ratio = round(seconds["loop"] / seconds["ours"], 2)
    case = f"means of {k} profiles"
    yield {
        "measured": f"{case}, loop over queries",
        "time, s": round(seconds["loop"], 3),
        "result": ratio,
        "unit": "times ours",
        **at_least(MIN_LOOP, ratio),
    }
    yield {
        "measured": f"{case}, embedding_bag without spread",
        "time, s": round(seconds["bag"], 3),
        "result": round(seconds["bag"] / seconds["ours"], 2),
        "unit": "times ours",
    }


def compare_from_disk(file: Path, size: Size, repeats: int) -> Iterator[Row]:
    """Compare retrieval from a mapped file with the products of its blocks, and watch memory."""
    k = size.k
    n_references = size.n_references
    references = write_references(file, n_references, size.width)
    queries = draw_unit_vectors(size.n_queries, size.width, 0)
    scores = np.empty((size.n_queries, BLOCK), np.float32)

    def multiply() -> None:
        for start in range(0, n_references, BLOCK):
            block = references[start : start + BLOCK]
            np.matmul(queries, block.T, out=scores[:, : len(block)])

    def search() -> None:
        nearest(queries, references, k)

    nearest(queries, references[:BLOCK], k)  # compiles
    growth = round(anonymous_growth(search))
    neighbors = nearest(queries[:N_CHECKED], references, k)
    best = np.einsum("qd,qd->q", queries[:N_CHECKED], references[neighbors.index[:, 0]])
    np.testing.assert_allclose(best, neighbors.similarity[:, 0], atol=1e-5)
    seconds = interleave({"product": multiply, "ours": search}, repeats, warm_up=1)
    ratio = round(seconds["ours"] / seconds["product"], 2)
    case = f"{n_references:,} references in a mapped file"
    yield {
        "measured": f"{case}, ours",
        "product, s": round(seconds["product"], 1),
        "time, s": round(seconds["ours"], 1),
        "result": ratio,
        "unit": "times the product",
        **at_most(MAX_PRODUCTS, ratio),
    }
    yield {
        "measured": f"{case}, memory",
        "result": growth,
        "unit": "MB",
        **at_most(MAX_MEGABYTES, growth),
    }


def write_references(file: Path, n: int, width: int) -> np.ndarray:
    """Write n unit vectors, unless they are there, and map them."""
    if not file.exists():
        mapped = np.lib.format.open_memmap(file, "w+", np.float32, (n, width))
        for start in range(0, n, 2**16):
            stop = min(start + 2**16, n)
            mapped[start:stop] = draw_unit_vectors(stop - start, width, start + 1)
    return np.load(file, mmap_mode="r")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the comparisons; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--disk", type=Path, help="file of references, not read into memory")
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    size = Size(options.queries, options.references, options.width, options.neighbors)
    if options.disk:
        rows = list(compare_from_disk(options.disk, size, options.repeats))
    else:
        rows = list(compare_search(size, options.repeats))
        rows += compare_means(size.n_queries, size.k, options.repeats)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
