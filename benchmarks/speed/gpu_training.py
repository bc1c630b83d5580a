"""Both stages of training under torchrun, once whole and once killed and resumed.

    torchrun --nproc-per-node 1 -m benchmarks.speed.gpu_training --stores a.zarr b.zarr --out run

`python -m benchmarks.speed.gpu_training` is the same without torchrun.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

import stp
from benchmarks.measure import ROOT, Row, at_most
from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig

TINY_GENES = GeneEncoderConfig(context_length=32, width=32, depth=2, n_heads=2, ffn_width=64)
TINY_IMAGES = ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    image_size=32,
    um_per_px=4.0,
)
IMAGES = ImageEncoderConfig(um_per_px=1.0)
KILLED_AFTER = {True: 5, False: 12}  # steps of the alignment, if the models are tiny or not
# Goals. On a GPU sums have no fixed order, and training makes the differences larger.
MAX_DIFFERENCE = {"cpu": 1e-6, "cuda": 1e-2}
PID = "pid"
SECONDS = "seconds"


def join_processes(device: torch.device) -> None:
    """Start the backend, for a single process too, and let all add up a number through it."""
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    one = torch.ones(1, device=device)
    dist.all_reduce(one)
    if one.item() != dist.get_world_size():
        raise RuntimeError(f"{dist.get_world_size()} processes add up to {one.item()}")


def train(out: Path, options: argparse.Namespace) -> None:
    """Train both stages in a folder, or resume them."""
    out.mkdir(parents=True, exist_ok=True)
    (out / PID).write_text(str(os.getpid()))
    start = time.perf_counter()
    batch_size = 16 if options.tiny else 64
    genes = stp.train.pretrain(
        options.stores,
        out / "genes",
        vocabulary=stp.Vocabulary.default().fit(options.stores),
        model=TINY_GENES if options.tiny else GeneEncoderConfig(),
        config=PretrainConfig(
            phases=(
                Phase(batch_size=batch_size),
                Phase(objective="neighborhood", batch_size=18 if options.tiny else 72),
            ),
            min_genes=10,
            device=options.device,
        ),
    )
    stp.train.align(
        options.stores,
        out / "stamp",
        gene_encoder=genes,
        image_encoder=TINY_IMAGES if options.tiny else IMAGES,
        config=AlignConfig(
            epochs=4 if options.tiny else 2,
            batch_size=batch_size,
            accumulate=1,
            min_genes=10,
            log_every=1,
            checkpoint_every=4 if options.tiny else 10,  # of several GB
            device=options.device,
        ),
    )
    (out / SECONDS).write_text(f"{time.perf_counter() - start:.1f}")


def train_killed_and_whole(
    stores: list[Path], folder: Path, device: str, *, is_tiny: bool
) -> list[Row]:
    """Train once whole, and once killed in the alignment and resumed; compare the weights."""
    folders = [folder / "killed", folder / "whole"]
    process = launch(stores, folders, device, is_tiny=is_tiny)
    n_steps = kill_in_alignment(process, folder / "killed", KILLED_AFTER[is_tiny])
    finish(launch(stores, folders, device, is_tiny=is_tiny))
    rows: list[Row] = [
        {
            "measured": "both stages under torchrun",
            "result": float((folder / "whole" / SECONDS).read_text()),
            "unit": "s",
            "note": f"loss {last_loss(folder / 'whole' / 'stamp'):.3f} at the end",
        }
    ]
    goal = MAX_DIFFERENCE[torch.device(device).type]
    for model in ("genes", "stamp"):
        difference = relative_difference(folder / "killed" / model, folder / "whole" / model)
        rows.append(
            {
                "measured": f"{model}, killed after {n_steps} steps of the alignment and resumed",
                "result": float(f"{difference:.2g}"),
                "unit": "relative difference of the weights from a whole run",
                **at_most(goal, difference),
            }
        )
    return rows


def launch(
    stores: list[Path], folders: list[Path], device: str, *, is_tiny: bool
) -> subprocess.Popen[str]:
    """Start the training in these folders, one after the other, under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "1", "-m", "benchmarks.speed.gpu_training"]
    command += ["--stores", *map(str, stores), "--out", *map(str, folders), "--device", device]
    if is_tiny:
        command.append("--tiny")
    # More threads add up in another order when the machine is busy.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a training, and show what it printed if it failed."""
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the training failed: {errors[-3000:]}")


def kill_in_alignment(process: subprocess.Popen[str], out: Path, n_at_least: int) -> int:
    """Kill a training after some steps of the alignment, and return their number."""
    metrics = out / "stamp" / "metrics.jsonl"
    while process.poll() is None:
        n_steps = metrics.read_text().count("\n") if metrics.exists() else 0
        if n_steps >= n_at_least:
            os.kill(int((out / PID).read_text()), signal.SIGKILL)
            process.communicate()
            return n_steps
        time.sleep(0.002)
    raise RuntimeError(f"the training ended before it was killed: {process.communicate()[1]}")


def last_loss(run: Path) -> float:
    """Return the last loss of a run."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["loss"])


def relative_difference(folder: Path, other: Path) -> float:
    """Return the norm of the difference of two models' weights over the norm of the weights."""
    one, two = (load_file(path / "model.safetensors") for path in (folder, other))
    differences = torch.tensor([torch.linalg.norm(one[name] - two[name]) for name in two])
    norms = torch.tensor([torch.linalg.norm(tensor.float()) for tensor in two.values()])
    return float(torch.linalg.norm(differences) / torch.linalg.norm(norms))


def main(arguments: list[str] | None = None) -> None:
    """Train both stages in this process, in each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    if "WORLD_SIZE" in os.environ:
        join_processes(torch.device(options.device))
    for out in options.out:
        train(out, options)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
