"""What many slides cost alignment: memory of its processes, seconds to the first step, and disk.

    python -m benchmarks.many_slides --data ../shared/data/her2st --out results/slides

Every store is a copy of C4 with its H&E; one process trains with a worker. Memory is what no other process shares
(Linux only): mapped images are not in it, and the system takes their pages back when it needs them.
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

import stp
from benchmarks.her2st import read_section
from benchmarks.many_stores import descend, usage
from stp.models import GeneEncoder, GeneEncoderConfig

RECIPE = """
stores = [{stores}]
output_dir = "run"
gene_encoder = "genes"
n_workers = 1
log_every = 1
batch_size = 32
accumulate = 1

[image_encoder]
backbone = "vit_tiny_patch16_224"
backbone_args = {{ depth = 1, embed_dim = 48, num_heads = 3 }}
"""
GENE = GeneEncoderConfig(context_length=64, width=32, depth=1, n_heads=2, ffn_width=64)


def write(data: Path, out: Path, n_stores: int) -> list[Path]:
    """Write the stores that are not there, and a gene encoder."""
    paths = [out / f"C4_{number}.zarr" for number in range(n_stores)]
    if not paths[0].exists():
        stp.io.write_store(read_section(data, "C4"), paths[0])
        vocabulary = stp.Vocabulary.default().fit(paths[:1])
        GeneEncoder(GENE, vocabulary).save_pretrained(out / "genes")
    for path in paths[1:]:
        if not path.exists():
            shutil.copytree(paths[0], path)
    return paths


def measure(out: Path, stores: list[Path], steps: int = 10) -> dict[str, float]:
    """Align some stores for some steps, then stop."""
    (out / "align.toml").write_text(RECIPE.format(stores=", ".join(f'"{path.name}"' for path in stores)))
    shutil.rmtree(out / "run", ignore_errors=True)
    command, start = [Path(sys.executable).with_name("stp"), "align", "align.toml"], time.perf_counter()
    metrics, first, peak = out / "run" / "metrics.jsonl", None, 0.0
    with (out / "log.txt").open("w") as log:
        run = subprocess.Popen(command, cwd=out, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while run.poll() is None:
            n_lines = metrics.read_text().count("\n") if metrics.exists() else 0
            first = first or (n_lines and time.perf_counter() - start)
            peak = max(peak, *(usage(pid)[1] for pid in descend(run.pid)))
            if n_lines >= steps:
                disk = sum(file.stat().st_size for file in (out / "run" / "scratch").rglob("*") if file.is_file())
                run.send_signal(signal.SIGTERM)
                run.wait()
            time.sleep(0.05)
    return {
        "stores": len(stores),
        "seconds to the first step": round(first, 1),
        "memory of the largest process, MB": round(peak),
        "scratch, GB": round(disk / 1e9, 2),
    }


def main() -> None:
    """Compare few slides with many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    parser.add_argument("--out", type=Path, required=True, help="folder for stores and the run")
    parser.add_argument("--stores", nargs="+", type=int, default=(2, 12))
    options = parser.parse_args()
    stores = write(options.data, options.out, max(options.stores))
    for n_stores in options.stores:
        print(json.dumps(measure(options.out, stores[:n_stores])))


if __name__ == "__main__":
    main()
