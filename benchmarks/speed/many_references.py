"""What millions of references on disk cost `predict_expression`: seconds, and memory of its own.

    python -m benchmarks.many_references --out results/references

One store of 100,000 spots with random unit vectors and counts, given as many times as are asked for; 2,000 queries.
Beside it, in turns, the matrix products that compare all pairs, from memory. Linux only.
"""

import argparse
import json
import threading
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse

import stp
from benchmarks.encoder import status
from benchmarks.retrieval import N_QUERIES, unit
from benchmarks.tokenize import interleave

N_SPOTS, N_GENES, DETECTED = 100_000, 2_000, 0.05
REP, BLOCK = {"images": "X_stp_images_aligned", "genes": "X_stp_genes_aligned"}, 4096
MODEL = {"model": {"name": "random", "class": "Stamp", "digest": "0" * 64, "vocabulary": None}}


def table(vectors: np.ndarray, kind: str, density: float) -> anndata.AnnData:
    """Make spots with vectors, as if a model had made them, and counts."""
    shape, rng = (len(vectors), N_GENES), np.random.default_rng(0)
    counts = scipy.sparse.random(
        *shape, density, "csr", np.float32, rng, lambda n: rng.integers(1, 9, n)
    )
    adata = anndata.AnnData(
        counts, obsm={REP[kind]: vectors, "spatial": rng.random((len(vectors), 2)) * 1e5}
    )
    adata.var_names = [f"gene{number}" for number in range(N_GENES)]
    adata.uns[REP[kind]] = MODEL
    return adata


def write(path: Path) -> None:
    """Write the store, unless it is there."""
    if not path.exists():
        slide = stp.io.from_anndata(table(unit(N_SPOTS, 1), "genes", DETECTED), None, um_per_px=1.0)
        slide.write(path)


def peak_of(work: Callable[[], None]) -> float:
    """Return the MB of its own by which this process grows at most while it works."""
    before, seen, done = status("RssAnon"), [], threading.Event()
    watch = threading.Thread(
        target=lambda: [seen.append(status("RssAnon")) for _ in iter(lambda: done.wait(0.05), True)]
    )
    watch.start()
    work()
    done.set()
    watch.join()
    return (max(seen) - before) / 1024


def main() -> None:
    """Predict from all the references, several times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the store")
    parser.add_argument("--stores", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "references.zarr"
    write(path)
    queries, block = table(unit(N_QUERIES, 0), "images", 0.0), unit(BLOCK, 2)
    scores = np.empty((N_QUERIES, BLOCK), np.float32)
    n_references = N_SPOTS * options.stores
    genes = [f"gene{number}" for number in range(200)]

    def predict() -> None:
        stp.tl.predict_expression(queries, [path] * options.stores, genes=genes)

    def product() -> None:
        for _ in range(n_references // BLOCK):
            np.matmul(queries.obsm[REP["images"]], block.T, out=scores)

    stp.tl.predict_expression(queries, path, genes=genes)  # compiles
    memory = peak_of(predict)
    seconds = interleave({"product": product, "predict_expression": predict}, options.repeats)
    ratio = seconds["predict_expression"] / seconds["product"]
    shown = {name: round(value, 1) for name, value in seconds.items()} | {
        "ratio": round(ratio, 2),
        "MB": round(memory),
    }
    print(json.dumps({"references": n_references, **shown}, indent=2))


if __name__ == "__main__":
    main()
