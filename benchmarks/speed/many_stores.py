"""What do many stores cost? Time to the first step, open files and memory of pretraining.

    python -m benchmarks.speed.many_stores --data ../shared/data/her2st --folder runs/many_stores

`torchrun` starts two processes with two workers each. Every store is a copy of one: 60 spots of
section C4. Memory is what no other process shares (Linux only). Then how many spots per second one
process ranks, and reads in batches of 256 masked spots of 1,500 tokens.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np

import stp
from benchmarks.measure import (
    Row,
    at_most,
    make_parser,
    process_kb,
    silence_logger,
    write_results,
)
from stp.data.masked_tokens import TokenDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex, SpotSampler
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore

RECIPE = """
stores = [{stores}]
output_dir = "run"
vocabulary = "vocabulary.parquet"
n_workers = 2
log_every = 1

[model]
context_length = 64
width = 32
depth = 1
n_heads = 2
ffn_width = 64

[[phase]]
batch_size = 32

[[phase]]
objective = "neighborhood"
batch_size = 36
"""
N_SPOTS = 60
METADATA = "zarr.json"
CONTEXT_LENGTH = 1500
BATCH_SIZE = 256
MAX_SECONDS = 20.0
MAX_FILES = 1024
POLL_SECONDS = 0.05


class Start(NamedTuple):
    """What the start of a training took."""

    seconds: float  # to the first step
    n_files: int  # open files of a process, at most
    megabytes: float  # memory of the largest process


def write_stores(data: Path, folder: Path, n_stores: int) -> None:
    """Write the stores that are missing, and a vocabulary."""
    adata = anndata.read_h5ad(data / "C4.h5ad")[:N_SPOTS].copy()
    first = folder / "stores" / "s0000.zarr"
    if not first.exists():
        um_per_px = adata.uns["um_per_px"]
        slide = stp.io.from_anndata(adata, None, um_per_px=um_per_px, spot_diameter_um=100)
        stp.io.write_store(slide, first)
        stp.Vocabulary.default().fit([first]).save(folder / "vocabulary.parquet")
    for number in range(1, n_stores):
        path = first.with_name(f"s{number:04d}.zarr")
        if not path.exists():
            _copy_store(first, path)


def _copy_store(store: Path, path: Path) -> None:
    """Copy a store under another digest, because training refuses two stores with one."""
    shutil.copytree(store, path)
    metadata = path / "zarr.json"
    digest = hashlib.sha256(path.name.encode()).hexdigest()
    text = metadata.read_text(encoding="utf-8").replace(SpotStore(store).digest, digest)
    metadata.write_text(text, encoding="utf-8")


def write_link(store: Path, path: Path) -> None:
    """Link what is in a store under another digest, because training refuses two with one."""
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for entry in store.iterdir():
        if entry.name != METADATA:
            (draft / entry.name).symlink_to(entry)
    text = (store / METADATA).read_text(encoding="utf-8")
    digest = hashlib.sha256(path.name.encode()).hexdigest()
    text = text.replace(SpotStore(store).digest, digest)
    (draft / METADATA).write_text(text, encoding="utf-8")
    draft.rename(path)


def list_children() -> dict[int, list[int]]:
    """Return the children of every process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = process_kb("PPid", entry.name)
        except (OSError, KeyError):  # it has ended
            continue
        children.setdefault(parent, []).append(int(entry.name))
    return children


def list_descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    children = list_children()
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def measure_process(pid: int) -> tuple[int, float]:
    """Return the open files of a process and its own memory in MiB; zeros if it has ended."""
    try:
        n_files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return n_files, process_kb("RssAnon", pid) / 1024
    except (OSError, KeyError):
        return 0, 0.0


def start_training(folder: Path, n_stores: int, n_steps: int) -> Start:
    """Train on the first stores for some steps, then stop."""
    stores = ", ".join(f'"stores/s{number:04d}.zarr"' for number in range(n_stores))
    return run_recipe(folder, stores, n_steps)


def run_recipe(folder: Path, stores: str, n_steps: int) -> Start:
    """Train on stores for some steps, then stop.

    Parameters
    ----------
    folder
        Folder of the stores, with `vocabulary.parquet`.
    stores
        Paths or patterns of the stores, in quotes and with commas between them.
    n_steps
        Number of steps.
    """
    (folder / "recipe.toml").write_text(RECIPE.format(stores=stores))
    shutil.rmtree(folder / "run", ignore_errors=True)
    programs = Path(sys.executable).parent
    command = [str(programs / "torchrun"), "--no-python", "--nproc-per-node", "2"]
    command += [str(programs / "stp"), "pretrain", "recipe.toml"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    metrics = folder / "run" / "metrics.jsonl"
    first_step = None
    n_files = 0
    megabytes = 0.0
    start = time.perf_counter()
    with log.open("w") as stream:
        run = subprocess.Popen(command, cwd=folder, stderr=stream, env=environment)
        while run.poll() is None:
            n_logged = metrics.read_text().count("\n") if metrics.exists() else 0
            if n_logged and first_step is None:
                first_step = time.perf_counter() - start
            for pid in list_descendants(run.pid):
                files_now, megabytes_now = measure_process(pid)
                n_files = max(n_files, files_now)
                megabytes = max(megabytes, megabytes_now)
            if n_logged >= n_steps:
                run.send_signal(signal.SIGTERM)
                break
            time.sleep(POLL_SECONDS)
        run.wait()
    if first_step is None:
        raise RuntimeError(log.read_text())
    return Start(first_step, n_files, megabytes)


def compare(folder: Path, n_stores: int, n_steps: int, repeats: int) -> Iterator[Row]:
    """Return the range over some starts with as many stores."""
    starts = [start_training(folder, n_stores, n_steps) for _ in range(repeats)]
    seconds = [round(start.seconds, 1) for start in starts]
    n_files = [start.n_files for start in starts]
    megabytes = [round(start.megabytes) for start in starts]
    yield {
        "measured": f"{n_stores} stores, time to the first step",
        "result": [min(seconds), max(seconds)],
        "unit": "s",
        **at_most(MAX_SECONDS, max(seconds)),
    }
    yield {
        "measured": f"{n_stores} stores, open files of a process",
        "result": [min(n_files), max(n_files)],
        "unit": "files",
        **at_most(MAX_FILES, max(n_files)),
    }
    yield {
        "measured": f"{n_stores} stores, memory of the largest process",
        "result": [min(megabytes), max(megabytes)],
        "unit": "MB",
    }


def time_reading(folder: Path, n_stores: int, n_batches: int | None) -> Iterator[Row]:
    """Return the spots per second that one process ranks, and reads; None reads an epoch."""
    paths = sorted((folder / "stores").glob("*.zarr"))[:n_stores]
    stores = [SpotStore(path) for path in paths]
    vocabulary = stp.Vocabulary.load(folder / "vocabulary.parquet")
    tokens = SpotFile(folder / "tokens", [len(store) for store in stores], CONTEXT_LENGTH)
    tokens.create()
    rank_stores(stores, vocabulary, tokens, size=len(stores))  # compiles
    start = time.perf_counter()
    rank_stores(stores, vocabulary, tokens)
    ranked = time.perf_counter()
    dataset = TokenDataset(stores, vocabulary, tokens, fraction=0.15, seed=0)
    rows = [np.arange(len(store)) for store in stores]
    batches = SpotSampler(rows, BATCH_SIZE, seed=0).batches(0)[:n_batches]
    before = time.perf_counter()
    for spots in batches:
        dataset[SpotIndex(0, spots)]
    after = time.perf_counter()
    n_read = sum(len(spots) for spots in batches)
    (folder / "tokens").unlink()
    n_spots = sum(len(store) for store in stores)
    rank_rate = round(n_spots / (ranked - start))
    read_rate = round(n_read / (after - before))
    yield {"measured": "ranking, one process", "result": rank_rate, "unit": "spots/s"}
    yield {"measured": "reading, one process", "result": read_rate, "unit": "spots/s"}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure with few and with many stores; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument("--folder", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--stores", type=int, nargs="+", default=(20, 100, 500))
    parser.add_argument("--steps", type=int, default=20, help="steps before training is stopped")
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args(arguments)
    silence_logger()
    n_most = max(options.stores)
    write_stores(options.data, options.folder, n_most)
    rows: list[Row] = []
    for n_stores in options.stores:
        rows += compare(options.folder, n_stores, options.steps, options.repeats)
    rows += time_reading(options.folder, n_most, options.steps)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
