"""How fast are neighborhoods drawn? By k-d tree, next to the quadratic form of Algorithm 2.

    python -m benchmarks.speed.sampling [--data ../shared/data]

Both forms draw the same groups. Times are interleaved, the median of several. Then half a million
bins, and the share of spots that are grouped on real slides.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from benchmarks.measure import Row, at_least, at_most, interleave, make_parser, write_results
from stp.data.neighborhoods import MAX_SPACINGS, neighborhoods, spacing

GROUP_SIZE = 9
MIN_RATIO = 25.0
MAX_SECONDS = 5.0  # goal for half a million bins
SECTIONS = ("C4", "D1", "F1")


def lay_hexagons(n_rows: int, n_columns: int) -> np.ndarray:
    """Return the centers of a Visium-like lattice, 100 µm apart, hardly jittered."""
    grid = np.meshgrid(np.arange(n_rows), np.arange(n_columns), indexing="ij")
    row, column = (axis.ravel() for axis in grid)
    x = 100.0 * column + 50 * (row % 2)
    y = 100 * np.sqrt(3) / 2 * row
    centers = np.column_stack([x, y])
    return centers + np.random.default_rng(0).normal(0, 0.1, centers.shape)


def draw_quadratically(coordinates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw groups as Algorithm 2 is written: from all neighbors of all spots."""
    limit = MAX_SPACINGS * spacing(coordinates)
    n_spots = len(coordinates)
    finder = NearestNeighbors(n_neighbors=n_spots).fit(coordinates)
    neighbors = finder.kneighbors(coordinates, return_distance=False)
    is_free = np.ones(n_spots, dtype=bool)
    groups = []
    for seed in rng.permutation(n_spots):
        if not is_free[seed] or is_free.sum() < GROUP_SIZE:
            continue
        order = neighbors[seed]
        group = order[is_free[order]][:GROUP_SIZE]
        distances = np.linalg.norm(coordinates[group][:, None] - coordinates[group], axis=-1)
        if distances.max() <= limit:
            is_free[group] = False
            groups.append(group)
    return np.array(groups).reshape(-1, GROUP_SIZE)


def draw_by_tree(coordinates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw groups as `stp` does."""
    return neighborhoods(coordinates, rng)


def compare(coordinates: np.ndarray, repeats: int) -> Row:
    """Compare both forms, after a check that they draw the same groups."""
    forms = {"tree": draw_by_tree, "quadratic": draw_quadratically}
    groups = [form(coordinates, np.random.default_rng(0)) for form in forms.values()]
    if not np.array_equal(*groups):
        raise RuntimeError("both forms should draw the same groups")
    runs = {
        name: partial(form, coordinates, np.random.default_rng(0)) for name, form in forms.items()
    }
    seconds = interleave(runs, repeats)
    ratio = round(seconds["quadratic"] / seconds["tree"], 1)
    return {
        "measured": f"{len(coordinates):,} spots",
        "quadratic, s": round(seconds["quadratic"], 3),
        "k-d tree, s": round(seconds["tree"], 4),
        "result": ratio,
        "unit": "quadratic / k-d tree",
        **at_least(MIN_RATIO, ratio),
    }


def time_bins(coordinates: np.ndarray) -> Iterator[Row]:
    """Draw groups of very many bins once."""
    start = time.perf_counter()
    groups = neighborhoods(coordinates, np.random.default_rng(0))
    seconds = round(time.perf_counter() - start, 1)
    name = f"{len(coordinates):,} bins"
    yield {"measured": name, "result": seconds, "unit": "s", **at_most(MAX_SECONDS, seconds)}
    share = round(groups.size / len(coordinates), 4)
    yield {"measured": f"{name}, share grouped", "result": share, "unit": "of the bins"}


def measure_grouped(name: str, coordinates: np.ndarray, n_seeds: int = 10) -> Row:
    """Return the share of spots in groups, over some seeds."""
    shares = []
    for seed in range(n_seeds):
        groups = neighborhoods(coordinates, np.random.default_rng(seed))
        shares.append(groups.size / len(coordinates))
    return {
        "measured": f"{name}, share grouped over {n_seeds} seeds",
        "result": {"mean": round(float(np.mean(shares)), 3), "lowest": round(min(shares), 3)},
        "unit": "of the spots",
    }


def read_slides(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and spot centers of real slides."""
    for name in SECTIONS:
        yield name, anndata.read_h5ad(data / f"her2st/{name}.h5ad").obsm["spatial"].astype(float)
    spots = pd.read_csv(data / "dlpfc/dlpfc_spots_labels.tsv.gz", sep="\t")
    for sample, slide in spots.groupby("sample"):
        yield f"cortex {sample}", slide[["px_col", "px_row"]].to_numpy(float)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Time both forms and count grouped spots; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder of her2st and dlpfc")
    parser.add_argument("--spots", type=int, nargs=2, default=(64, 78), help="rows and columns")
    parser.add_argument("--bins", type=int, nargs=2, default=(700, 714), help="rows and columns")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = [compare(lay_hexagons(*options.spots), options.repeats)]
    rows += time_bins(lay_hexagons(*options.bins))
    if options.data:
        rows += [measure_grouped(name, centers) for name, centers in read_slides(options.data)]
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
