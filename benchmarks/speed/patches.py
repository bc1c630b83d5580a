"""Patches beside reading the whole level, loading beside data in memory, embedding beside the bare model; interleaved.

    python -m benchmarks.patches

Cutting: 2,704 patches of 224 px on a lattice of an 8,000 x 8,000 image, from zarr with chunks of 256 and of 1,024 px
and from a TIFF of JPEG tiles: through `ImagePyramid`, by reading the whole level and slicing it, and by SpatialData's
`bounding_box_query` (on every 45th patch, it is slow). Rates are medians of interleaved repeats; patches are compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse
import spatialdata
import tifffile
import torch
import zarr
from spatialdata.models import Image2DModel

import stp
from benchmarks.tokenize import interleave
from stp.data.pairs import PairDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.images.pyramid import ImagePyramid, PatchWindow

SIDE, SIZE, PER_ROW, MIB = 8000, 224, 52, 2**20
WINDOW = {"size": SIZE, "um_per_px": 0.5}
GENES = ["EPCAM", "KRT8", "KRT18", "ERBB2", "COL1A1", "DCN", "LUM", "PTPRC"]

PEAK = """
import re, sys
from pathlib import Path
from benchmarks.patches import cut, lattice, pyramid_of
kind, path, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
cut(kind, path, limit, lattice()[:1])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
memory = lambda name: int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = memory("VmRSS")
cut(kind, path, limit, lattice())
print(memory("VmHWM") - before)
"""


def picture() -> np.ndarray:
    """Draw what compresses about as tissue does: blobs of a few pixels, with noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 220, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return large + rng.integers(0, 16, large.shape, dtype=np.uint8)


def lattice() -> np.ndarray:
    """Lay 52 x 52 centers whose patches lie inside."""
    line = np.linspace(SIZE / 2, SIDE - SIZE / 2, PER_ROW).round()
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def write(image: np.ndarray, folder: Path) -> dict[str, Path]:
    """Write the picture in all forms."""
    paths = {"jpeg tiles": folder / "a.tif"}
    tifffile.imwrite(
        paths["jpeg tiles"], image, tile=(256, 256), photometric="rgb", compression="jpeg"
    )
    planes = np.moveaxis(image, -1, 0)
    for chunk in (256, 1024):
        element = Image2DModel.parse(
            planes, c_coords=list("rgb"), scale_factors=[2], chunks=(3, chunk, chunk)
        )
        paths[f"zarr {chunk}"] = folder / f"{chunk}.zarr"
        spatialdata.SpatialData(images={"he": element}).write(paths[f"zarr {chunk}"])
    return paths


def pyramid_of(kind: str, path: Path) -> ImagePyramid:
    """Open a form of the picture as a user does."""
    if kind == "jpeg tiles":
        return ImagePyramid.from_path(path, um_per_px=0.5)
    return ImagePyramid.from_spatialdata(spatialdata.read_zarr(path), "he", um_per_px=0.5)


def cut(kind: str, path: Path, limit: int | None, centers: np.ndarray) -> None:
    """Open and cut, batch by batch."""
    for _ in pyramid_of(kind, path).stream(
        centers, PatchWindow(**WINDOW), batch_size=64, max_bytes=limit
    ):
        pass


def sliced(kind: str, path: Path, centers: np.ndarray) -> np.ndarray:
    """Read the whole level, and cut patches from the array."""
    if kind == "jpeg tiles":
        array = tifffile.imread(path)
    else:
        group = zarr.open_group(path, mode="r")["images/he"]
        array = np.moveaxis(
            group[group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]][:], 0, -1
        )
    patches = np.empty((len(centers), SIZE, SIZE, 3), np.uint8)
    for patch, (x, y) in zip(patches, (centers - SIZE / 2).astype(int), strict=True):
        patch[:] = array[y : y + SIZE, x : x + SIZE]
    return patches


def queried(path: Path, centers: np.ndarray) -> None:
    """Cut patches by `bounding_box_query`."""
    image = spatialdata.read_zarr(path)["he"]
    for center in centers:
        box = {"min_coordinate": center - SIZE / 2, "max_coordinate": center + SIZE / 2}
        part = spatialdata.bounding_box_query(
            image, axes=("x", "y"), target_coordinate_system="global", **box
        )
        np.asarray(next(iter(part["scale0"].data_vars.values())).data)


def cutting(kind: str, path: Path, repeats: int) -> dict[str, float]:
    """Return patches per second of each way, how the pyramid's compares, and what memory it took."""
    centers = lattice()
    few = centers[::45]
    for limit in (None, 64 * MIB):
        read = pyramid_of(kind, path).read(centers, max_bytes=limit, **WINDOW)
        assert np.array_equal(read, sliced(kind, path, centers))
    runs = {
        "pyramid": partial(cut, kind, path, None, centers),
        "pyramid, 64 MiB": partial(cut, kind, path, 64 * MIB, centers),
        "whole level": partial(sliced, kind, path, centers),
    }
    if kind != "jpeg tiles":
        runs["bounding_box_query"] = partial(queried, path, few)
    seconds = interleave(runs, repeats)
    rates = {
        name: (len(few) if name.startswith("bound") else len(centers)) / s
        for name, s in seconds.items()
    }
    ratios = {
        f"pyramid / {name}": rates["pyramid"] / rate
        for name, rate in rates.items()
        if name[:7] != "pyramid"
    }
    ratios["pyramid, 64 MiB / whole level"] = rates["pyramid, 64 MiB"] / rates["whole level"]
    command = [sys.executable, "-W", "ignore", "-c", PEAK, kind, path, str(64 * MIB)]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024
    shown = {name: round(rate) for name, rate in rates.items()} | {
        name: round(r, 2) for name, r in ratios.items()
    }
    return shown | {"growth of memory at 64 MiB, in MiB": round(peak)}


def slide_of(image: np.ndarray, centers: np.ndarray) -> spatialdata.SpatialData:
    """Make a slide with counts at these centers."""
    counts = scipy.sparse.random(
        len(centers), len(GENES), 0.9, "csr", np.float32, np.random.default_rng(0)
    )
    counts.data = np.ceil(counts.data * 9)
    adata = anndata.AnnData(counts, obsm={"spatial": centers})
    adata.var_names = GENES
    return stp.io.from_anndata(adata, image, um_per_px=0.5)


def epoch(dataset: PairDataset, batch: int = 64) -> None:
    """Read an epoch of pairs in random order."""
    order = np.random.default_rng(0).permutation(len(dataset.targets["genes"][0]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        dataset[SpotIndex(0, np.column_stack([np.zeros_like(rows), rows]))]


def loading(image: np.ndarray, folder: Path, repeats: int) -> dict[str, float]:
    """Compare epochs over a store with epochs over arrays in memory; how long the store is opened stands apart."""
    path = folder / "store.zarr"
    stp.io.write_store(slide_of(image, lattice()), path)
    vocabulary = stp.Vocabulary.default().fit([path])
    how = {"image_size": SIZE, "um_per_px": 0.5, "seed": 0}
    store = SpotStore(path)
    tokens = SpotFile(folder / "tokens", [len(store)], 8)
    tokens.create()
    rank_stores([store], vocabulary, tokens)
    start = time.perf_counter()
    store.write_pixels(folder / "pixels")
    opened = time.perf_counter() - start
    store.map_pixels(folder / "pixels")
    memory = SpotStore(path)
    levels = (ImagePyramid.from_array(image, 0.5).levels[0], store.pyramid.levels[1])
    memory.__dict__["pyramid"] = ImagePyramid(levels, 0.5, np.diag([2.0, 2.0, 1]))
    runs = {
        name: partial(epoch, PairDataset([one], {"genes": tokens}, **how))
        for name, one in {"store": store, "arrays": memory, "zarr chunks": SpotStore(path)}.items()
    }
    seconds = interleave(runs, repeats)
    rates = {f"{name}, pairs/s": round(len(lattice()) / value) for name, value in seconds.items()}
    ratios = {
        f"{name} / arrays": round(seconds["arrays"] / seconds[name], 3)
        for name in ("store", "zarr chunks")
    }
    return rates | ratios | {"decoding the store, s": round(opened, 2)}


def embedding(image: np.ndarray, repeats: int, n: int, device: str) -> dict[str, float]:
    """Compare `embed_images` with the bare model on the same batches."""
    sdata = slide_of(image, lattice()[:n])
    backbone = "vit_small_patch16_224" if device == "cpu" else "vit_large_patch16_224"
    model = stp.models.ImageEncoder(stp.models.ImageEncoderConfig(backbone)).eval().to(device)
    centers = sdata["table"].obsm["spatial"]
    patches = ImagePyramid.from_array(image, 0.5).read(centers, **WINDOW)

    def bare() -> None:
        precision = torch.autocast(device, torch.bfloat16, enabled=device != "cpu")
        with torch.inference_mode(), precision:
            for start in range(0, n, 64):
                model(torch.from_numpy(patches[start : start + 64]).to(device)).float().cpu()

    runs = {
        "bare model": bare,
        "embed_images": lambda: stp.tl.embed_images(sdata, model, device=device),
    }
    seconds = interleave(runs, repeats)
    seconds["embed_images / bare model"] = seconds["embed_images"] / seconds["bare model"]
    return {name: round(value, 3) for name, value in seconds.items()}


def main(arguments: list[str] | None = None) -> dict:
    """Run all comparisons; prints and returns the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--embedded", type=int, default=128, help="patches that the model embeds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["cutting", "loading", "embedding"])
    options = parser.parse_args(arguments)
    image, results = picture(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "cutting"):
            for kind, path in write(image, folder).items():
                results[kind] = cutting(kind, path, options.repeats)
        if options.only in (None, "loading"):
            results["loading"] = loading(image, folder, options.repeats)
        if options.only in (None, "embedding"):
            results["embedding"] = embedding(
                image, options.repeats, options.embedded, options.device
            )
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
