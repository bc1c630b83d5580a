"""Neighborhoods by k-d tree beside the quadratic form of Algorithm 2, and on half a million bins.

    python -m benchmarks.sampling [--data ../shared/data]

Both forms draw the same groups; times are interleaved, the median of several.
"""

import argparse
import json
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from benchmarks.tokenize import interleave
from stp.data.neighborhoods import MAX_SPACINGS, neighborhoods, spacing


def hexagons(n_rows: int, n_columns: int) -> np.ndarray:
    """Return the centers of a Visium-like lattice, 100 um apart, hardly jittered."""
    row, column = (
        x.ravel() for x in np.meshgrid(np.arange(n_rows), np.arange(n_columns), indexing="ij")
    )
    centers = np.column_stack([100.0 * column + 50 * (row % 2), 100 * np.sqrt(3) / 2 * row])
    return centers + np.random.default_rng(0).normal(0, 0.1, centers.shape)


def quadratic(coordinates: np.ndarray, rng: np.random.Generator, size: int = 9) -> np.ndarray:
    """Draw groups as Algorithm 2 is written: from all neighbors of all spots, sorted by distance."""
    limit, groups = MAX_SPACINGS * spacing(coordinates), []
    neighbors = (
        NearestNeighbors(n_neighbors=len(coordinates)).fit(coordinates).kneighbors(coordinates)[1]
    )
    free = np.ones(len(coordinates), dtype=bool)
    for seed in rng.permutation(len(coordinates)):
        if free[seed] and free.sum() >= size:
            order = neighbors[seed]
            group = order[free[order]][:size]
            spread = np.linalg.norm(coordinates[group][:, None] - coordinates[group], axis=-1).max()
            if spread <= limit:
                free[group] = False
                groups.append(group)
    return np.array(groups).reshape(-1, size)


def grouped(coordinates: np.ndarray, seeds: int = 10) -> dict[str, float]:
    """Share of spots in groups, over some seeds."""
    shares = [
        neighborhoods(coordinates, np.random.default_rng(seed)).size / len(coordinates)
        for seed in range(seeds)
    ]
    return {"mean": round(float(np.mean(shares)), 4), "lowest": round(min(shares), 4)}


def main() -> None:
    """Time both forms and count grouped spots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder of her2st and dlpfc: how many of their spots are grouped"
    )
    options = parser.parse_args()
    small, large = hexagons(64, 78), hexagons(700, 714)
    assert np.array_equal(
        *(form(small, np.random.default_rng(0)) for form in (neighborhoods, quadratic))
    )
    runs = {
        form.__name__: lambda form=form: form(small, np.random.default_rng(0))
        for form in (neighborhoods, quadratic)
    }
    seconds = interleave(runs, 5)
    start = time.perf_counter()
    groups = neighborhoods(large, np.random.default_rng(0))
    results = {
        "spots": len(small),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "ratio": round(seconds["quadratic"] / seconds["neighborhoods"], 1),
        "bins": {"n": len(large), "grouped": round(groups.size / len(large), 4)},
    }
    results["bins"]["seconds"] = round(time.perf_counter() - start, 1)
    if options.data:
        sections = {
            name: anndata.read_h5ad(options.data / f"her2st/{name}.h5ad")
            for name in ("C4", "D1", "F1")
        }
        spots = pd.read_csv(options.data / "dlpfc/dlpfc_spots_labels.tsv.gz", sep="\t")
        slides = {name: adata.obsm["spatial"] for name, adata in sections.items()}
        slides |= {
            str(name): slide[["px_col", "px_row"]].to_numpy(float)
            for name, slide in spots.groupby("sample")
        }
        results["grouped"] = {
            name: grouped(np.asarray(centers, float)) for name, centers in slides.items()
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
