"""What many stores cost: seconds to the first step, open files and memory of two processes with two workers each.

    python -m benchmarks.many_stores --data ../shared/data/her2st --out results/many

Every store is a copy of one: 60 spots of section C4. Memory is what no other process shares (Linux only). Then how
fast stores are ranked, and batches of 256 masked spots of 1,500 tokens are read, by one process.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np

import stp
from stp.data.masked_tokens import TokenDataset
from stp.data.ranking import rank_stores
from stp.data.samplers import SpotIndex, SpotSampler
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore

RECIPE = """
stores = ["stores/s0*.zarr"]
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
SPOTS = 60


def write(data: Path, out: Path, n_stores: int) -> None:
    """Write the stores that are not there, a vocabulary and a recipe."""
    adata = anndata.read_h5ad(data / "C4.h5ad")[:SPOTS].copy()
    first = out / "stores" / "s0000.zarr"
    if not first.exists():
        slide = stp.io.from_anndata(
            adata, None, um_per_px=adata.uns["um_per_px"], spot_diameter_um=100
        )
        stp.io.write_store(slide, first)
        stp.Vocabulary.default().fit([first]).save(out / "vocabulary.parquet")
    for number in range(1, n_stores):
        path = first.with_name(f"s{number:04d}.zarr")
        if not path.exists():
            shutil.copytree(first, path)
    (out / "recipe.toml").write_text(RECIPE)


def processes() -> dict[int, list[int]]:
    """Return the children of every process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    return children


def descend(pid: int) -> list[int]:
    """List a process and all below it."""
    children, found = processes(), [pid]
    for one in found:
        found += children.get(one, [])
    return found


def usage(pid: int) -> tuple[int, float]:
    """Return the open files of a process and its own memory in MB."""
    try:
        own = [
            line
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("RssAnon")
        ]
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()), int(own[0].split()[1]) / 1024
    except (OSError, IndexError):
        return 0, 0.0


def measure(out: Path, n_stores: int, steps: int = 20) -> dict[str, float]:
    """Train on the first stores for some steps, then stop."""
    recipe = (
        (out / "recipe.toml").read_text().replace('"stores/s0*.zarr"', ", ".join(_names(n_stores)))
    )
    (out / "some.toml").write_text(recipe)
    shutil.rmtree(out / "run", ignore_errors=True)
    folder = Path(sys.executable).parent
    command = [
        folder / "torchrun",
        "--no-python",
        "--nproc-per-node",
        "2",
        folder / "stp",
        "pretrain",
        "some.toml",
    ]
    start, first, peak = time.perf_counter(), None, (0, 0.0)
    with (out / "log.txt").open("w") as log:
        run = subprocess.Popen(
            command, cwd=out, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        metrics = out / "run" / "metrics.jsonl"
        while run.poll() is None:
            n_lines = metrics.read_text().count("\n") if metrics.exists() else 0
            first = first or (n_lines and time.perf_counter() - start)
            for files, memory in map(usage, descend(run.pid)):
                peak = max(peak[0], files), max(peak[1], memory)
            if n_lines >= steps:
                run.send_signal(signal.SIGTERM)
                break
            time.sleep(0.05)
        run.wait()
    if not first:
        raise RuntimeError((out / "log.txt").read_text())
    return {
        "seconds to the first step": round(first, 1),
        "open files": peak[0],
        "MB": round(peak[1]),
    }


def loader(out: Path, n_stores: int, n_batches: int = 20) -> dict[str, int]:
    """Return spots per second that one process ranks, and reads."""
    stores = [SpotStore(path) for path in sorted((out / "stores").glob("*.zarr"))[:n_stores]]
    vocabulary = stp.Vocabulary.load(out / "vocabulary.parquet")
    file = SpotFile(out / "tokens", [len(store) for store in stores], 1500)
    file.create()
    rank_stores(stores, vocabulary, file, size=len(stores))  # compiles
    start = time.perf_counter()
    rank_stores(stores, vocabulary, file)
    ranked = time.perf_counter()
    dataset = TokenDataset(stores, vocabulary, file, fraction=0.15, seed=0)
    batches = SpotSampler([np.arange(len(store)) for store in stores], 256, seed=0).batches(0)[
        :n_batches
    ]
    for spots in batches:
        dataset[SpotIndex(0, spots)]
    read = time.perf_counter()
    (out / "tokens").unlink()
    return {
        "ranked": round(file.offsets[-1] / (ranked - start)),
        "read": round(256 * len(batches) / (read - ranked)),
    }


def _names(n_stores: int) -> list[str]:
    return [f'"stores/s{number:04d}.zarr"' for number in range(n_stores)]


def main() -> None:
    """Measure with few and with many stores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stores", type=int, nargs="+", default=(20, 100, 500))
    options = parser.parse_args()
    write(options.data, options.out, max(options.stores))
    results = {f"{n} stores": measure(options.out, n) for n in options.stores}
    print(
        json.dumps(
            results | {"spots per second": loader(options.out, max(options.stores))}, indent=2
        )
    )


if __name__ == "__main__":
    main()
