"""How long do neighbors and clusters of half a million embeddings take, and are they right?

    python -m benchmarks.speed.neighbors_large

The calls are those of the how-to on Visium HD: approximate neighbors by PyNNDescent through scanpy,
and Leiden by igraph. Neighbors of sampled rows are compared with an exact search in float32.
Embeddings are drawn: tissue classes that vary along a few directions, bent into the full width.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Row, at_least, at_most, make_parser, peak_growth, write_results

if TYPE_CHECKING:
    from anndata import AnnData

N_NEIGHBORS = 16  # scanpy counts the spot itself
N_CLASSES = 12
N_DIRECTIONS = 16
NOISE = 0.05  # standard deviation of each feature
BLOCK_ROWS = 250  # queries that are compared with all rows at a time
MIN_RECALL = 0.95
MAX_MINUTES = 30.0


def draw_embeddings(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings (n, width) of tissue classes, and the class of each row (n,)."""
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.standard_normal((N_CLASSES, N_DIRECTIONS))
    first = rng.standard_normal((N_DIRECTIONS, 64)) / np.sqrt(N_DIRECTIONS)
    second = rng.standard_normal((64, width)) / 8
    labels = rng.integers(N_CLASSES, size=n)
    embeddings = np.empty((n, width), np.float32)
    for start in range(0, n, 2**15):
        rows = slice(start, min(start + 2**15, n))
        spread = rng.standard_normal((rows.stop - start, N_DIRECTIONS))
        bent = np.tanh((centers[labels[rows]] + 0.7 * spread) @ first)
        noise = NOISE * rng.standard_normal((rows.stop - start, width))
        embeddings[rows] = bent @ second + noise
    return embeddings, labels


def find_exact_neighbors(embeddings: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Return the k other rows nearest to each of `rows` (len(rows), k), by all distances."""
    squares = np.einsum("nd,nd->n", embeddings, embeddings)
    nearest = np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        distances = squares - 2 * (embeddings[block] @ embeddings.T)
        distances[np.arange(len(block)), block] = np.inf
        nearest[start : start + BLOCK_ROWS] = np.argpartition(distances, k, axis=1)[:, :k]
    return nearest


def recall(adata: "AnnData", rows: np.ndarray, exact: np.ndarray) -> float:
    """Return which share of the exact neighbors the graph of scanpy has."""
    graph = adata.obsp["distances"]
    shares = []
    for row, expected in zip(rows, exact, strict=True):
        indices = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
        shares.append(np.isin(expected, indices).mean())
    return float(np.mean(shares))


def run_and_measure(work: Callable[[], object]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and the growth of memory in MiB of a call."""
    seconds = time.perf_counter()
    cpu = time.process_time()
    growth = peak_growth(work)
    return time.perf_counter() - seconds, time.process_time() - cpu, growth


def measure_neighbors(n: int, width: int, n_checked: int) -> list[Row]:
    """Find neighbors and clusters as the how-to does; return what each costs."""
    import anndata
    import scanpy as sc
    from sklearn.metrics import adjusted_rand_score

    embeddings, labels = draw_embeddings(n, width)
    adata = anndata.AnnData(shape=(n, 0), obsm={"X_stp_images": embeddings})

    def find_neighbors() -> None:
        sc.pp.neighbors(
            adata, n_neighbors=N_NEIGHBORS, use_rep="X_stp_images", transformer="pynndescent"
        )

    def cluster() -> None:
        sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)

    rows = np.random.default_rng(1).choice(n, size=min(n_checked, n), replace=False)
    neighbor_cost = run_and_measure(find_neighbors)
    exact = find_exact_neighbors(embeddings, rows, N_NEIGHBORS - 1)
    share = round(recall(adata, rows, exact), 4)
    leiden_cost = run_and_measure(cluster)
    minutes = round((neighbor_cost[0] + leiden_cost[0]) / 60, 2)
    agreement = adjusted_rand_score(labels, adata.obs["leiden"])
    return [
        _cost_row("sc.pp.neighbors", neighbor_cost),
        _cost_row("sc.tl.leiden, igraph", leiden_cost),
        {
            "measured": "neighbors and clusters",
            "result": minutes,
            "unit": "minutes",
            **at_most(MAX_MINUTES, minutes),
        },
        {
            "measured": "recall@15 against exact search",
            "result": share,
            "unit": f"of {len(rows):,} rows",
            **at_least(MIN_RECALL, share),
        },
        {
            "measured": "clusters against the planted classes",
            "result": round(float(agreement), 3),
            "unit": f"ARI, {adata.obs['leiden'].nunique()} clusters",
        },
    ]


def _cost_row(name: str, cost: tuple[float, float, float]) -> Row:
    seconds, cpu_seconds, growth = cost
    return {
        "measured": name,
        "CPU, min": round(cpu_seconds / 60, 2),
        "memory, GB": round(growth / 1024, 2),
        "result": round(seconds / 60, 2),
        "unit": "minutes",
    }


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the comparison; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--spots", type=int, default=500_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--checked", type=int, default=2_000)
    options = parser.parse_args(arguments)
    rows = measure_neighbors(options.spots, options.width, options.checked)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
