"""What does reading patches cost? Loading pairs from a store, and embedding the patches of a slide.

    python -m benchmarks.speed.reading

Loading: an epoch of pairs in random order from a store, next to one from arrays in memory.
Embedding: `tl.embed_images`, next to the bare model on the same batches. Times are medians of
interleaved repeats.
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse
import spatialdata
import torch

import stp
from benchmarks.measure import (
    Row,
    at_least,
    at_most,
    autocast,
    choose_device,
    interleave,
    make_parser,
    silence_logger,
    synchronize,
    write_results,
)
from benchmarks.speed.patches import BATCH_SIZE, SIZE, UM_PER_PX, draw_picture, lay_centers
from stp.data.pairs import PairDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.images import ImagePyramid

GENES = ["EPCAM", "KRT8", "KRT18", "ERBB2", "COL1A1", "DCN", "LUM", "PTPRC"]
MIN_LOADING = 0.95
MAX_EMBEDDING = 1.10


def make_slide(image: np.ndarray, centers: np.ndarray) -> spatialdata.SpatialData:
    """Make a slide with counts at these centers."""
    rng = np.random.default_rng(0)
    shape = (len(centers), len(GENES))
    counts = scipy.sparse.random(*shape, 0.9, format="csr", dtype=np.float32, random_state=rng)
    counts.data = np.ceil(counts.data * 9)
    adata = anndata.AnnData(counts, obsm={"spatial": centers})
    adata.var_names = GENES
    return stp.io.from_anndata(adata, image, um_per_px=UM_PER_PX)


def read_epoch(dataset: PairDataset, n_spots: int) -> None:
    """Read an epoch of pairs in random order."""
    order = np.random.default_rng(0).permutation(n_spots)
    for start in range(0, n_spots, BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        dataset[SpotIndex(0, np.column_stack([np.zeros_like(rows), rows]))]


def compare_loading(
    image: np.ndarray, centers: np.ndarray, folder: Path, repeats: int
) -> Iterator[Row]:
    """Compare epochs over a store with epochs over arrays in memory."""
    path = folder / "store.zarr"
    stp.io.write_store(make_slide(image, centers), path)
    vocabulary = stp.Vocabulary.default().fit([path])
    store = SpotStore(path)
    tokens = SpotFile(folder / "tokens", [len(store)], 8)
    tokens.create()
    rank_stores([store], vocabulary, tokens)
    start = time.perf_counter()
    store.write_pixels(folder / "pixels")
    decoding = time.perf_counter() - start
    store.map_pixels(folder / "pixels")
    memory = SpotStore(path)
    levels = (ImagePyramid.from_array(image, UM_PER_PX).levels[0], store.pyramid.levels[1])
    memory.__dict__["pyramid"] = ImagePyramid(levels, UM_PER_PX, np.diag([2.0, 2.0, 1]))
    sources = {"memory": memory, "store, decoded first": store, "zarr chunks": SpotStore(path)}
    runs = {}
    for name, source in sources.items():
        dataset = PairDataset(
            [source], {"genes": tokens}, image_size=SIZE, um_per_px=UM_PER_PX, seed=0
        )
        runs[name] = partial(read_epoch, dataset, len(centers))
    seconds = interleave(runs, repeats)
    for name, value in seconds.items():
        share = round(seconds["memory"] / value, 3)
        row = {
            "measured": f"loading pairs from {name}",
            "pairs/s": round(len(centers) / value),
            "result": share,
            "unit": "of the rate from memory",
        }
        yield row | (at_least(MIN_LOADING, share) if name.startswith("store") else {})
    yield {"measured": "decoding the store once", "result": round(decoding, 1), "unit": "s"}


def compare_embedding(
    image: np.ndarray, centers: np.ndarray, repeats: int, device: torch.device
) -> list[Row]:
    """Compare `embed_images` with the bare model on the same batches."""
    sdata = make_slide(image, centers)
    backbone = "vit_small_patch16_224" if device.type == "cpu" else "vit_large_patch16_224"
    config = stp.models.ImageEncoderConfig(backbone, has_prompt=False)
    model = stp.models.ImageEncoder(config).eval().to(device)
    spots = sdata["table"].obsm["spatial"]
    pyramid = ImagePyramid.from_array(image, UM_PER_PX)
    patches = torch.from_numpy(pyramid.read(spots, size=SIZE, um_per_px=UM_PER_PX))

    def embed_bare() -> None:
        with torch.inference_mode(), autocast(device):
            for batch in patches.split(BATCH_SIZE):
                model(batch.to(device)).float().cpu()

    def embed() -> None:
        stp.tl.embed_images(sdata, model, device=str(device))

    runs = {"bare": synchronize(embed_bare, device), "verb": synchronize(embed, device)}
    seconds = interleave(runs, repeats)
    ratio = round(seconds["verb"] / seconds["bare"], 2)
    row = {
        "measured": f"tl.embed_images, {len(centers)} patches on {device}",
        "result": ratio,
        "unit": "times the bare model",
    }
    return [row | at_most(MAX_EMBEDDING, ratio)]


def main(arguments: list[str] | None = None) -> list[Row]:
    """Compare loading and embedding; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--side", type=int, default=8000, help="pixels per side of the image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--embedded", type=int, default=128, help="patches that the model embeds")
    options = parser.parse_args(arguments)
    silence_logger()
    image = draw_picture(options.side)
    centers = lay_centers(options.side)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(compare_loading(image, centers, Path(folder), options.repeats))
    embedded = centers[: options.embedded]
    rows += compare_embedding(image, embedded, options.repeats, choose_device())
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
