"""What do millions of references on disk cost `predict_expression`? Time, and memory of its own.

    python -m benchmarks.speed.many_references --folder runs/references

One store of 100,000 spots with random unit vectors and counts is passed many times, with 2,000
queries. Next to it, in turns, run the matrix products that compare all pairs (Linux only).
"""

from pathlib import Path

import anndata
import numpy as np
import scipy.sparse

import stp
from benchmarks.measure import (
    Row,
    anonymous_growth,
    at_most,
    interleave,
    make_parser,
    silence_logger,
    write_results,
)
from benchmarks.speed.retrieval import draw_unit_vectors

N_GENES = 2_000
N_PREDICTED = 200
WIDTH = 512
DETECTED = 0.05  # share of counts that are not zero
BLOCK = 4096  # references multiplied at a time
IMAGES = "X_stp_images_aligned"
GENES = "X_stp_genes_aligned"
MODEL = {"model": {"name": "random", "class": "Stamp", "digest": "0" * 64, "vocabulary": None}}
MAX_RATIO = 1.6
MAX_MEGABYTES = 200.0


def make_table(vectors: np.ndarray, key: str, density: float) -> anndata.AnnData:
    """Return spots with counts, and with vectors as if a model had made them."""
    rng = np.random.default_rng(0)
    counts = scipy.sparse.random(
        len(vectors),
        N_GENES,
        density,
        format="csr",
        dtype=np.float32,
        random_state=rng,
        data_rvs=lambda n: rng.integers(1, 9, n),
    )
    centers = rng.random((len(vectors), 2)) * 1e5
    adata = anndata.AnnData(counts, obsm={key: vectors, "spatial": centers})
    adata.var_names = [f"gene{number}" for number in range(N_GENES)]
    adata.uns[key] = MODEL
    return adata


def write_references(path: Path, n_spots: int) -> None:
    """Write a store of references, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    table = make_table(draw_unit_vectors(n_spots, WIDTH, 1), GENES, DETECTED)
    stp.io.from_anndata(table, None, um_per_px=1.0).write(path)


def compare(path: Path, n_stores: int, n_spots: int, n_queries: int, repeats: int) -> list[Row]:
    """Compare the verb with the products, several times in turns."""
    queries = make_table(draw_unit_vectors(n_queries, WIDTH, 0), IMAGES, 0.0)
    block = draw_unit_vectors(BLOCK, WIDTH, 2)
    scores = np.empty((n_queries, BLOCK), np.float32)
    genes = [f"gene{number}" for number in range(N_PREDICTED)]
    n_references = n_spots * n_stores
    n_blocks = max(1, n_references // BLOCK)

    def predict() -> None:
        stp.tl.predict_expression(queries, [path] * n_stores, genes=genes)

    def multiply() -> None:
        for _ in range(n_blocks):
            np.matmul(queries.obsm[IMAGES], block.T, out=scores)

    stp.tl.predict_expression(queries, path, genes=genes)  # compiles
    growth = round(anonymous_growth(predict))
    seconds = interleave({"products": multiply, "verb": predict}, repeats)
    ratio = round(seconds["verb"] / seconds["products"], 2)
    name = f"predict_expression, {n_references:,} references in stores"
    return [
        {
            "measured": f"{name}, time",
            "product, s": round(seconds["products"], 1),
            "time, s": round(seconds["verb"], 1),
            "result": ratio,
            "unit": "times the products",
            **at_most(MAX_RATIO, ratio),
        },
        {
            "measured": f"{name}, memory",
            "result": growth,
            "unit": "MB",
            **at_most(MAX_MEGABYTES, growth),
        },
    ]


def main(arguments: list[str] | None = None) -> list[Row]:
    """Predict from all the references, several times; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the store")
    parser.add_argument("--stores", type=int, default=20)
    parser.add_argument("--spots", type=int, default=100_000, help="spots of a store")
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    silence_logger()
    path = options.folder / f"references_{options.spots}.zarr"
    write_references(path, options.spots)
    rows = compare(path, options.stores, options.spots, options.queries, options.repeats)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
