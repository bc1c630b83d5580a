"""How fast are slide models on bags of 10,000 tiles, and in how much memory?

    python -m benchmarks.speed.bags --folder runs/bag_speed

Measured are training steps against a matrix product in turns, the peak memory of an epoch over 50
and over 200 bags, and the time to make the bag file. The bags are noise in KatherLab's layout.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import (
    Row,
    anonymous_growth,
    at_least,
    at_most,
    choose_device,
    in_new_process,
    interleave,
    make_parser,
    matrix_product,
    silence_logger,
    write_results,
)

if TYPE_CHECKING:
    import torch

    from stp.data.bag_file import BagFile
    from stp.tables.cohort import BagSource
    from stp.train.slide_task import SlidePrediction

HIDDEN = 512
ATTENTION = 256
DRAWN_TILES = 512
REPEATS = 15
N_MEMORY_RUNS = 3


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Make the bags, measure, and write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder of bags")
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--fewer-bags", type=int, default=50, help="bags to compare memory with")
    parser.add_argument("--tiles", type=int, default=10_000, help="tiles of a bag")
    parser.add_argument("--width", type=int, default=1024, help="features of a tile")
    options = parser.parse_args(arguments)
    silence_logger()
    paths = write_sources(options.folder / "sources", options.bags, options.tiles, options.width)
    rows = in_new_process(copy_rows, paths[: options.fewer_bags], options.folder / "copies")
    files = {n: options.folder / f"bags_{n}" for n in (options.fewer_bags, options.bags)}
    for n_bags, folder in files.items():
        in_new_process(write_bag_file, paths[:n_bags], folder)
    rows += in_new_process(step_rows, files[options.bags], options.bags)
    # As many steps for both numbers of bags, because a peak is found sooner in more steps.
    growths: dict[int, list[float]] = {n: [] for n in files}
    for _ in range(N_MEMORY_RUNS):
        for n_bags, folder in files.items():
            growths[n_bags].append(in_new_process(epoch_growth, folder, options.bags))
    growth = {n: float(np.median(values)) for n, values in growths.items()}
    ratio = growth[options.bags] / max(growth[options.fewer_bags], 1.0)
    rows.append(
        {
            "measured": f"peak memory of {options.bags} steps, {options.bags} bags",
            "result": round(ratio, 3),
            "unit": f"times that of {options.fewer_bags} bags",
            "memory, MiB": round(growth[options.bags]),
        }
        | at_most(1.05, ratio)
    )
    write_results(options.out, rows)
    return rows


def write_sources(folder: Path, n_bags: int, n_tiles: int, width: int) -> list[Path]:
    """Write feature files in KatherLab's layout; those that exist are kept."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"slide{number:04d}.h5" for number in range(n_bags)]
    n_columns = int(np.ceil(np.sqrt(n_tiles)))
    corners = 256.0 * np.stack(np.divmod(np.arange(n_tiles), n_columns)[::-1], axis=1)
    for number, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        unfinished = path.with_suffix(".part")
        with h5py.File(unfinished, "w") as file:
            features = rng.standard_normal((n_tiles, width), dtype=np.float32)
            file["feats"] = features.astype(np.float16)
            file["coords"] = corners.astype(np.float32)
            file.attrs.update(
                stamp_version="2.4.0",
                extractor="noise",
                unit="um",
                tile_size_um=256.0,
                tile_size_px=224,
                code_hash="0" * 8,
                feat_type="tile",
            )
        unfinished.rename(path)
    return paths


def bag_sources(paths: list[Path]) -> "list[BagSource]":
    """Return the slides of a cohort with one slide per patient."""
    from stp.data.feature_files import open_features
    from stp.tables.cohort import BagSource

    sources = []
    for path in paths:
        file = open_features(path)
        sources.append(
            BagSource(
                patient=path.stem,
                slide=path.stem,
                path=path,
                use_rep="X_features",
                table_key="table",
                n_tiles=file.n_tiles,
                width=file.width,
                dtype=str(file.dtype),
            )
        )
    return sources


def write_bag_file(paths: list[Path], folder: Path) -> None:
    """Write the bag file of these slides, unless it is finished."""
    from stp.data.bag_file import INDEX, BagFile

    if not (folder / INDEX).exists():
        folder.mkdir(parents=True, exist_ok=True)
        BagFile.write(bag_sources(paths), folder)


def copy_rows(paths: list[Path], folder: Path) -> list[Row]:
    """Compare making the bag file with reading the same files and copying the same bytes."""
    import h5py

    from stp.data.bag_file import FEATURES, BagFile

    ours = folder / "ours"
    copies = folder / "copies"
    for path in (ours, copies):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    sources = bag_sources(paths)
    BagFile.write(sources, ours)

    def read_and_copy() -> None:
        for path in paths:
            with h5py.File(path) as file:
                file["feats"][:]
                file["coords"][:]
        shutil.copyfile(ours / FEATURES, copies / FEATURES)

    def write() -> None:
        BagFile.write(sources, ours)

    seconds = interleave({"ours": write, "peer": read_and_copy}, REPEATS, warm_up=1)
    ratio = seconds["ours"] / seconds["peer"]
    shutil.rmtree(folder)
    return [
        {
            "measured": f"bag file of {len(paths)} slides",
            "time, s": round(seconds["ours"], 2),
            "result": round(ratio, 2),
            "unit": "times reading once and copying",
        }
        | at_most(1.3, ratio)
    ]


def make_task(width: int) -> "SlidePrediction":
    """Return a gated attention model of two classes, with the sizes of the paper's ABMIL."""
    from stp.models.slide import SlideModel
    from stp.models.slide_config import SlideFeatures, SlideModelConfig, SlideTarget
    from stp.train.slide_task import SlidePrediction

    target = SlideTarget("classes", "label", ("no", "yes"), "yes")
    config = SlideModelConfig(
        SlideFeatures(width), (target,), hidden=HIDDEN, attention=ATTENTION, gated=True
    )
    return SlidePrediction(SlideModel(config))


def step_rows(folder: Path, n_bags: int) -> list[Row]:
    """Compare a training step on one bag with a matrix product, and time an epoch."""
    import torch

    from benchmarks.speed.bag_step import HandwrittenStep, step_flops
    from stp.data.bag_file import BagFile

    file = BagFile.open(folder)
    n_tiles, width = file.bag(0).shape
    device = choose_device()
    task = make_task(width).to(device)
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-4)
    batch = read_batch(file, 0)

    def step() -> None:
        train_step(task, optimizer, batch)

    by_hand = HandwrittenStep(batch["features"].to(device), HIDDEN, ATTENTION)
    product, product_flops = matrix_product(device)
    runs = {"product": product, "step": step, "by hand": by_hand}
    times = interleave(runs, REPEATS, warm_up=1)
    speed = product_flops / times["product"]
    seconds = times["step"]
    flops = step_flops(n_tiles, width, HIDDEN, ATTENTION)
    ratio = flops / seconds / speed
    ceiling = flops / times["by hand"] / speed
    n_timed = min(20, n_bags)
    start = time.perf_counter()
    for number in range(n_timed):
        train_step(task, optimizer, read_batch(file, number))
    per_bag = (time.perf_counter() - start) / n_timed
    return [
        {
            "measured": f"training step, one bag of {n_tiles:,} tiles",
            "time, s": round(seconds, 2),
            "result": round(ratio, 2),
            "unit": "of the speed of a matrix product",
        }
        | at_least(0.8, ratio),
        {
            "measured": "the same products and functions by hand, without dropout",
            "time, s": round(times["by hand"], 2),
            "result": round(ceiling, 2),
            "unit": "of the speed of a matrix product",
        },
        {
            "measured": f"epoch of 160 full bags, from {n_timed} bags",
            "time, s": round(160 * per_bag),
            "result": round(per_bag / seconds, 2),
            "unit": "times the step from memory",
        },
    ]


def labels_of(file: "BagFile") -> "dict[str, torch.Tensor]":
    """Return classes that alternate."""
    import torch

    return {
        "label_0": torch.arange(len(file)) % 2,
        "event_0": torch.zeros(len(file), dtype=torch.bool),
        "has_label_0": torch.ones(len(file), dtype=torch.bool),
    }


def read_batch(file: "BagFile", number: int) -> "dict[str, torch.Tensor]":
    """Return all tiles of a bag as a batch."""
    from stp.data.bags import Bags
    from stp.data.samplers import SpotIndex

    return Bags(file, labels_of(file))[SpotIndex(0, np.array([[number, 0]]))]


def train_step(
    task: "SlidePrediction", optimizer: "torch.optim.Optimizer", batch: "dict[str, torch.Tensor]"
) -> None:
    """Update the weights once."""
    optimizer.zero_grad()
    task(batch)["loss"].backward()
    optimizer.step()


def epoch_growth(folder: Path, n_steps: int) -> float:
    """Return by how many MiB memory grows in steps of training and as many of prediction."""
    import torch

    from stp.data.bag_file import BagFile
    from stp.data.bags import Bags
    from stp.data.samplers import SpotIndex

    file = BagFile.open(folder)
    task = make_task(file.features.shape[1])
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-4)
    drawn = Bags(file, labels_of(file), max_tiles=DRAWN_TILES)

    def epoch() -> None:
        for step in range(n_steps):
            row = np.array([[step % len(file), 0]])
            train_step(task, optimizer, drawn[SpotIndex(step // len(file), row)])
        with torch.inference_mode():
            for step in range(n_steps):
                task(read_batch(file, step % len(file)))

    return anonymous_growth(epoch)


if __name__ == "__main__":
    main()
