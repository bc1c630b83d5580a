"""How fast are patches cut, and in how much memory?

    python -m benchmarks.speed.patches

2,704 patches of 224 px are cut on a lattice of an 8,000 x 8,000 image, from zarr with chunks of 256
and of 1,024 px and from a TIFF of JPEG tiles. `ImagePyramid` is compared with two ways: read the
whole level and slice it; and SpatialData's `bounding_box_query` on every 45th patch, as it is slow.
Patches are compared bit for bit. Memory is by how much that of a new process grows (Linux only).
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import spatialdata
import tifffile
import zarr
from spatialdata.models import Image2DModel

from benchmarks.measure import (
    Row,
    at_least,
    at_most,
    in_new_process,
    interleave,
    make_parser,
    peak_growth,
    silence_logger,
    write_results,
)
from stp.images import ImagePyramid
from stp.images.pyramid import PatchWindow

SIZE = 224
UM_PER_PX = 0.5
BATCH_SIZE = 64
MIB = 2**20
BATCHES_MIB = 18  # two batches of patches, which the limit does not count
EVERY = 45  # patches between two that are cut by bounding_box_query
JPEG = "JPEG tiles"
MIN_LEVEL = 0.6
MIN_QUERY = 20.0


def draw_picture(side: int) -> np.ndarray:
    """Draw what compresses about as tissue does: blobs of a few pixels, with noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 220, (side // 8, side // 8, 3)).astype(np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return large + rng.integers(0, 16, large.shape, dtype=np.uint8)


def lay_centers(side: int) -> np.ndarray:
    """Return the centers of a square lattice of patches that lie inside the picture."""
    per_row = round(52 * side / 8000)
    line = np.linspace(SIZE / 2, side - SIZE / 2, per_row).round()
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def write_pictures(image: np.ndarray, folder: Path) -> dict[str, Path]:
    """Write the picture in all formats."""
    paths = {JPEG: folder / "a.tif"}
    tifffile.imwrite(paths[JPEG], image, tile=(256, 256), photometric="rgb", compression="jpeg")
    planes = np.moveaxis(image, -1, 0)
    for side in (256, 1024):
        element = Image2DModel.parse(
            planes, c_coords=list("rgb"), scale_factors=[2], chunks=(3, side, side)
        )
        path = folder / f"{side}.zarr"
        spatialdata.SpatialData(images={"he": element}).write(path)
        paths[f"zarr, chunks of {side} px"] = path
    return paths


def open_pyramid(path: Path) -> ImagePyramid:
    """Open a picture as a user does."""
    if path.suffix == ".tif":
        return ImagePyramid.from_path(path, um_per_px=UM_PER_PX)
    return ImagePyramid.from_spatialdata(spatialdata.read_zarr(path), "he", um_per_px=UM_PER_PX)


def cut_by_pyramid(path: Path, max_bytes: int, centers: np.ndarray) -> None:
    """Open and cut, batch by batch."""
    window = PatchWindow(SIZE, UM_PER_PX)
    pyramid = open_pyramid(path)
    for _ in pyramid.stream(centers, window, batch_size=BATCH_SIZE, max_bytes=max_bytes):
        pass


def cut_whole_level(path: Path, centers: np.ndarray) -> np.ndarray:
    """Read the whole level, and cut patches from the array."""
    if path.suffix == ".tif":
        array = tifffile.imread(path)
    else:
        group = zarr.open_group(path, mode="r")["images/he"]
        level = group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]
        array = np.moveaxis(group[level][:], 0, -1)
    patches = np.empty((len(centers), SIZE, SIZE, 3), np.uint8)
    for patch, (x, y) in zip(patches, (centers - SIZE / 2).astype(int), strict=True):
        patch[:] = array[y : y + SIZE, x : x + SIZE]
    return patches


def cut_by_query(path: Path, centers: np.ndarray) -> None:
    """Cut patches by `bounding_box_query`."""
    image = spatialdata.read_zarr(path)["he"]
    for center in centers:
        part = spatialdata.bounding_box_query(
            image,
            axes=("x", "y"),
            target_coordinate_system="global",
            min_coordinate=center - SIZE / 2,
            max_coordinate=center + SIZE / 2,
        )
        np.asarray(next(iter(part["scale0"].data_vars.values())).data)


def check_patches(path: Path, centers: np.ndarray) -> None:
    """Raise RuntimeError unless all ways cut the same pixels."""
    expected = cut_whole_level(path, centers)
    for limit in (64 * MIB, 256 * MIB):
        patches = open_pyramid(path).read(centers, size=SIZE, um_per_px=UM_PER_PX, max_bytes=limit)
        if not np.array_equal(patches, expected):
            raise RuntimeError(f"patches of {path} differ from slices of the level")


def compare_cutting(kind: str, path: Path, centers: np.ndarray, repeats: int) -> Iterator[Row]:
    """Compare the patches per second of each way, then memory."""
    check_patches(path, centers)
    every = centers[::EVERY]
    runs: dict[str, Callable[[], object]] = {
        "whole level": partial(cut_whole_level, path, centers),
        "pyramid, 256 MiB": partial(cut_by_pyramid, path, 256 * MIB, centers),
        "pyramid, 64 MiB": partial(cut_by_pyramid, path, 64 * MIB, centers),
    }
    if kind != JPEG:
        runs["bounding_box_query"] = partial(cut_by_query, path, every)
    seconds = interleave(runs, repeats)
    rates = {name: len(centers) / value for name, value in seconds.items()}
    if kind != JPEG:
        rates["bounding_box_query"] = len(every) / seconds["bounding_box_query"]
    for name, rate in rates.items():
        ratio = round(rate / rates["whole level"], 2)
        row = {
            "measured": f"{kind}: {name}",
            "patches/s": round(rate),
            "result": ratio,
            "unit": "of the rate by whole level",
        }
        yield row | (at_least(MIN_LEVEL, ratio) if name.startswith("pyramid") else {})
    if kind != JPEG:
        ratio = round(rates["pyramid, 256 MiB"] / rates["bounding_box_query"])
        row = {"measured": f"{kind}: pyramid / bounding_box_query", "result": ratio}
        yield row | at_least(MIN_QUERY, ratio)


def compare_memory(
    kind: str, path: Path, centers: np.ndarray, limits: Sequence[int]
) -> Iterator[Row]:
    """Return by how much memory grows in a new process that cuts under a limit in MiB."""
    for limit in limits:
        growth = round(in_new_process(measure_growth, path, limit * MIB, centers))
        row = {
            "measured": f"{kind}: memory of pyramid, limit {limit} MiB",
            "result": growth,
            "unit": "MiB",
        }
        yield row | at_most(limit + BATCHES_MIB, growth)


def measure_growth(path: Path, limit: int, centers: np.ndarray) -> float:
    """Return by how many MiB memory grows while patches are cut; call it in a new process."""
    cut_by_pyramid(path, limit, centers[:1])  # imports
    return peak_growth(partial(cut_by_pyramid, path, limit, centers))


def main(arguments: list[str] | None = None) -> list[Row]:
    """Compare ways to cut patches of all formats; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--side", type=int, default=8000, help="pixels per side of the image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--limits", type=int, nargs="*", default=(32, 64, 256), help="limits of memory in MiB"
    )
    options = parser.parse_args(arguments)
    silence_logger()
    centers = lay_centers(options.side)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(draw_picture(options.side), Path(folder))
        for kind, path in paths.items():
            rows += compare_cutting(kind, path, centers, options.repeats)
            rows += compare_memory(kind, path, centers, options.limits)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
