"""Can a collection of the size of the paper be prepared and trained on, and what ends first?

    python -m benchmarks.speed.collection --data ../shared/data/her2st --folder runs/collection

Small sections are repeated with jitter (`benchmarks.speed.collection_sources`) and go through
`stp.io.write_collection` with one and with two workers, `stp vocabulary`, the start of pretraining
and one epoch of loading. Then pretraining starts on links to these stores, as many as the paper has
slides. Memory is what no other process shares (Linux only). The last rows extrapolate to 5.75
million spots, by the pixels of the images. Without --data the slides are synthetic.

Every step writes its result into the folder. The same command continues after a stop.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import PIL.Image
import tifffile
import zarr

import stp
from benchmarks.measure import (
    Row,
    make_parser,
    run_once,
    silence_logger,
    write_results,
)
from benchmarks.speed.collection_rows import (
    N_SLIDES,
    compare_preparing,
    describe_start,
    extrapolate,
)
from benchmarks.speed.collection_sources import list_sources, write_sources
from benchmarks.speed.many_stores import (
    list_descendants,
    measure_process,
    run_recipe,
    time_reading,
    write_link,
)

PREPARE = (
    "import os, sys, stp; os.sched_setaffinity(0, range(int(sys.argv[4]))); "
    "stp.io.write_collection("
    "sys.argv[1], sys.argv[2], n_workers=int(sys.argv[3]), progress=False)"
)
LEVELS = ("images/image/s0", "images/image/s1")  # of a store, the finer one first
WATCH_SECONDS = 1.0  # looking at processes more often would take a part of a core
N_PLAIN = 10  # stores that are compared with reading and writing alone


def watch(command: list[str], log: Path) -> dict[str, float]:
    """Run a command; return its seconds, and the largest process: open files and MiB."""
    n_files = 0
    megabytes = 0.0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with log.open("w") as stream:
        run = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        while run.poll() is None:
            for pid in list_descendants(run.pid):
                files_now, megabytes_now = measure_process(pid)
                n_files = max(n_files, files_now)
                megabytes = max(megabytes, megabytes_now)
            time.sleep(WATCH_SECONDS)
    if run.returncode:
        raise RuntimeError(log.read_text())
    return {"seconds": time.perf_counter() - start, "n_files": n_files, "megabytes": megabytes}


def prepare(
    manifest: Path, out: Path, n_workers: int, n_cores: int = os.cpu_count() or 1
) -> list[Row]:
    """Prepare a collection; return what it took, and the rate without the start of processes."""
    arguments = [str(manifest), str(out), str(n_workers), str(n_cores)]
    command = [sys.executable, "-c", PREPARE, *arguments]
    result: Row = dict(watch(command, out.with_suffix(".log")))
    lines = last_call(out / "prepare.jsonl")
    ends = [time.mktime(time.strptime(line["time"], "%Y-%m-%dT%H:%M:%S")) for line in lines]
    starts = [end - line["seconds"] for end, line in zip(ends, lines, strict=True)]
    result["per_minute"] = 60 * len(lines) / max(max(ends) - min(starts), 1)
    result["seconds_of"] = {line["name"]: line["seconds"] for line in lines}
    return [result]


def prepare_anew(manifest: Path, out: Path, n_cores: int = os.cpu_count() or 1) -> list[Row]:
    """Prepare a collection in a new folder with one worker."""
    shutil.rmtree(out, ignore_errors=True)
    return prepare(manifest, out, 1, n_cores)


def last_call(log: Path) -> list[dict[str, Any]]:
    """Return the lines of the stores that the last call wrote."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    failures = [line for line in lines if line["status"] == "failed"]
    if failures:
        raise RuntimeError(failures[0]["error"])
    others = [number for number, line in enumerate(lines) if line["status"] != "written"]
    return lines[others[-1] + 1 if others else 0 :]


def read_and_write(manifest: Path, out: Path, folder: Path) -> list[Row]:
    """Time what no way to prepare a store can leave out, for the first sources.

    That is reading the source, resampling and compressing its pixels, and writing the bytes of the
    store.
    """
    seconds = {}
    resampling = {}
    compressing = {}
    for name, counts, image in list(list_sources(manifest))[:N_PLAIN]:
        store = out / f"{name}.zarr"
        files = [path for path in sorted(store.rglob("*")) if path.is_file()]
        contents = [path.read_bytes() for path in files]
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        anndata.read_h5ad(counts)
        pixels = tifffile.imread(image, maxworkers=1)
        for path, content in zip(files, contents, strict=True):
            copy = folder / path.relative_to(store)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        seconds[name] = time.perf_counter() - start
        resampling[name] = resample(pixels, store)
        compressing[name] = compress(store, folder / "compressed")
    shutil.rmtree(folder)
    return [{"seconds_of": seconds, "resampling": resampling, "compressing": compressing}]


def resample(pixels: np.ndarray, store: Path) -> float:
    """Return the seconds in which Pillow makes both levels of a store from pixels in memory."""
    height, width = (zarr.open_array(store / LEVELS[0], mode="r")).shape[1:]
    coarse_height = zarr.open_array(store / LEVELS[1], mode="r").shape[1]
    start = time.perf_counter()
    fine = PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
    np.asarray(fine)
    np.asarray(fine.reduce(height // coarse_height))
    return time.perf_counter() - start


def compress(store: Path, folder: Path) -> float:
    """Return the seconds that compressing and writing of the pixels of a store takes."""
    seconds = 0.0
    for level in LEVELS:
        array = zarr.open_array(store / level, mode="r")
        pixels = array[:]
        start = time.perf_counter()
        copy = zarr.create_array(
            folder / level,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            shards=array.shards,
        )
        copy[:] = pixels
        seconds += time.perf_counter() - start
    return seconds


def describe_stores(out: Path) -> Row:
    """Return means over the stores: megapixels, megabytes, spots and files."""
    table = stp.io.read_collection(out).table
    megapixels = table["image_height_px"] * table["image_width_px"] / 1e6
    first = out / table["path"][0]
    return {
        "n_stores": len(table),
        "megapixels": float(megapixels.mean()),
        "megabytes": float(table["n_bytes"].mean() / 1e6),
        "n_spots": int(table["n_spots"].sum()),
        "n_files": sum(path.is_file() for path in first.rglob("*")),
    }


def fit_vocabulary(out: Path, folder: Path) -> list[Row]:
    """Fit gene means to the collection."""
    program = str(Path(sys.executable).parent / "stp")
    command = [program, "vocabulary", str(out), "--out", str(folder / "vocabulary.parquet")]
    return [dict(watch(command, folder / "vocabulary.log"))]


def start_training(folder: Path, stores: str, n_steps: int) -> list[Row]:
    """Start pretraining on the stores of a pattern, and stop after some steps."""
    return [run_recipe(folder, f'"{stores}"', n_steps)._asdict()]


def link_stores(out: Path, folder: Path, n_links: int) -> None:
    """Link each store as often as needed; a link has a digest of its own."""
    stores = sorted(out.glob("*.zarr"))
    for number in range(n_links):
        write_link(stores[number % len(stores)], folder / f"l{number:04d}.zarr")


def measure(options: Any) -> Iterator[Row]:
    """Take all steps that are not done yet, and return the rows of the table."""
    folder = options.folder.absolute()
    results = folder / f"results_{options.stores}"
    few = min(options.alone, options.stores)
    first = write_sources(options.data, folder / "sources", few)
    first = first.rename(first.with_name(f"manifest_{few}.csv"))
    manifest = write_sources(options.data, folder / "sources", options.stores)
    out = folder / "stores"
    alone = folder / "one"
    (one,) = run_once(results / "one.json", lambda: prepare_anew(first, alone))
    (plain,) = run_once(
        results / "least.json", lambda: read_and_write(first, alone, folder / "copy")
    )
    (one_core,) = run_once(
        results / "one_core.json", lambda: prepare_anew(first, folder / "one_core", 1)
    )
    (two,) = run_once(results / "two.json", lambda: prepare(manifest, out, 2))
    stores = describe_stores(out)
    yield from compare_preparing(one, one_core, two, plain)
    size = round(stores["megabytes"], 1)
    yield {"measured": "size of a store", "result": size, "unit": "MB"}
    yield {"measured": "files of a store", "result": stores["n_files"], "unit": "files"}
    (fit,) = run_once(results / "vocabulary.json", lambda: fit_vocabulary(out, folder))
    yield {"measured": "vocabulary", "result": round(fit["seconds"], 1), "unit": "s"}
    epoch = run_once(
        results / "epoch.json", lambda: list(time_reading(folder, options.stores, None))
    )
    yield from epoch
    if options.links:
        (start,) = run_once(
            results / "start.json", lambda: start_training(folder, "stores/*.zarr", options.steps)
        )
        yield from describe_start(start, options.stores)
        link_stores(out, folder / "links", options.links)
        (start,) = run_once(
            results / f"links_{options.links}.json",
            lambda: start_training(folder, "links/*.zarr", options.steps),
        )
        yield from describe_start(start, options.links)
    yield from extrapolate(one, two, stores)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure all steps; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder of HER2+ sections")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20, help="stores that one worker prepares")
    parser.add_argument("--links", type=int, default=N_SLIDES, help="0 leaves out the training")
    parser.add_argument("--steps", type=int, default=20, help="steps before training is stopped")
    options = parser.parse_args(arguments)
    silence_logger()
    rows = list(measure(options))
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
