"""Cutting patches beside reading the whole level, and a training loader beside data in memory; interleaved.

    python -m benchmarks.patches

2,704 patches of 224 px on a lattice of an 8,000 x 8,000 image, from zarr with chunks of 256 and of 1,024 px and from
a TIFF of JPEG tiles: through `ImagePyramid`, by reading the whole level and slicing it, and by SpatialData's
`bounding_box_query` (on fewer patches, it is slow). Rates are medians over interleaved repeats; patches are compared.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import spatialdata
import tifffile
import zarr
from spatialdata.models import Image2DModel

from stp.patches import ImagePyramid

SIDE, SIZE, PER_ROW = 8000, 224, 52
QUERIES = 60


def picture(side: int = SIDE) -> np.ndarray:
    """Draw what compresses about as tissue does: blobs of a few pixels, with noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 220, (side // 8, side // 8, 3)).astype(np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return large + rng.integers(0, 16, large.shape, dtype=np.uint8)


def lattice(side: int = SIDE) -> np.ndarray:
    """Lay 52 x 52 centers whose patches lie inside."""
    line = np.linspace(SIZE / 2, side - SIZE / 2, PER_ROW).round()
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def interleave(runs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Time functions in turn; median seconds of each."""
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def write(folder: Path) -> dict[str, Path]:
    """Write the picture in all forms."""
    image = picture()
    paths = {"jpeg tiles": folder / "a.tif"}
    tifffile.imwrite(paths["jpeg tiles"], image, tile=(256, 256), photometric="rgb", compression="jpeg")
    for chunk in (256, 1024):
        path = paths[f"zarr {chunk}"] = folder / f"{chunk}.zarr"
        element = Image2DModel.parse(image, dims=("y", "x", "c"), c_coords=list("rgb"), scale_factors=[2])
        element = Image2DModel.parse(
            np.moveaxis(image, -1, 0), c_coords=list("rgb"), scale_factors=[2], chunks=(3, chunk, chunk)
        )
        spatialdata.SpatialData(images={"he": element}).write(path)
    return paths


def pyramid_of(kind: str, path: Path) -> ImagePyramid:
    """Open a form of the picture as a user does."""
    if kind == "jpeg tiles":
        return ImagePyramid.from_path(path, um_per_px=0.5)
    return ImagePyramid.from_spatialdata(spatialdata.read_zarr(path), "he", um_per_px=0.5)


def whole(kind: str, path: Path) -> np.ndarray:
    """Read the whole level, as y x c."""
    if kind == "jpeg tiles":
        return tifffile.imread(path)
    return np.moveaxis(zarr.open_group(path, mode="r")["images/he/s0" if False else _first(path)][:], 0, -1)


def _first(path: Path) -> str:
    datasets = zarr.open_group(path, mode="r")["images/he"].attrs["ome"]["multiscales"][0]["datasets"]
    return f"images/he/{datasets[0]['path']}"


def slices(array: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Cut patches from an array."""
    patches = np.empty((len(centers), SIZE, SIZE, 3), np.uint8)
    for patch, (x, y) in zip(patches, (centers - SIZE / 2).astype(int), strict=True):
        patch[:] = array[y : y + SIZE, x : x + SIZE]
    return patches


def queried(sdata: spatialdata.SpatialData, centers: np.ndarray) -> list[np.ndarray]:
    """Cut patches by `bounding_box_query`."""
    found = []
    for center in centers:
        box = {"min_coordinate": center - SIZE / 2, "max_coordinate": center + SIZE / 2}
        part = spatialdata.bounding_box_query(sdata["he"], axes=("x", "y"), target_coordinate_system="global", **box)
        found.append(np.moveaxis(np.asarray(next(iter(part["scale0"].data_vars.values())).data), 0, -1))
    return found


def compare(kind: str, path: Path, repeats: int, max_bytes: int | None) -> dict[str, float]:
    """Return patches per second of each way, and how the pyramid's compares."""
    centers = lattice()
    window = {"size": SIZE, "um_per_px": 0.5}

    def streamed() -> None:
        for _ in pyramid_of(kind, path).stream(centers, batch_size=64, max_bytes=max_bytes, **window):
            pass

    expected = slices(whole(kind, path), centers)
    assert np.array_equal(pyramid_of(kind, path).read(centers, max_bytes=max_bytes, **window), expected)
    runs = {"pyramid": streamed, "whole level": lambda: slices(whole(kind, path), centers)}
    few = centers[:: len(centers) // QUERIES][:QUERIES]
    if kind != "jpeg tiles":
        sdata = spatialdata.read_zarr(path)
        runs["bounding_box_query"] = lambda: queried(sdata, few)
    rates = {
        name: (len(few) if name == "bounding_box_query" else len(centers)) / seconds
        for name, seconds in interleave(runs, repeats).items()
    }
    compared = {f"pyramid / {name}": rates["pyramid"] / rates[name] for name in list(rates)[1:]}
    return {name: round(value, 2) for name, value in (rates | compared).items()}


def main(arguments: list[str] | None = None) -> dict:
    """Run all comparisons; prints and returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in write(Path(folder)).items():
            for limit in (None, 64 * 2**20):
                name = kind if limit is None else f"{kind}, 64 MiB"
                results[name] = compare(kind, path, options.repeats, limit)
                print(name, results[name], flush=True)
    return results


if __name__ == "__main__":
    main()
