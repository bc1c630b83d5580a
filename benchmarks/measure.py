"""What several benchmarks share: timing, memory, goals, and the JSON file of a run."""

import argparse
import json
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]  # one row of a result table: name of the column, value
Result = TypeVar("Result")

ROOT = Path(__file__).parents[1]
VECTOR_UNITS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX"}
WATCH_SECONDS = 0.05


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the module's docstring and has the option `--out`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results of this run")
    return parser


def silence_logger() -> None:
    """Show warnings of `stp` only."""
    import stp.tl  # noqa: F401 - it makes the logger

    logging.getLogger("stp").setLevel(logging.WARNING)


# Timing


def interleave(
    runs: dict[str, Callable[[], object]], repeats: int, warm_up: int = 0
) -> dict[str, float]:
    """Call functions in turn and return the median seconds of each.

    Parameters
    ----------
    runs
        Name of each function.
    repeats
        Number of timed rounds.
    warm_up
        Number of rounds before, which compile and allocate and are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-warm_up, repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def choose_device() -> "torch.device":
    """Return a GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: "torch.device") -> "torch.autocast":
    """Compute in bf16 on a GPU and in fp32 on a CPU, as `stp` does by default."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def synchronize(run: Callable[[], object], device: "torch.device") -> Callable[[], None]:
    """Return a function that ends when its work on the device has ended."""
    import torch

    def run_to_the_end() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run_to_the_end


def matrix_product(device: "torch.device") -> tuple[Callable[[], None], float]:
    """Return a large matrix product, in the precision that models use there, and its FLOP."""
    import torch

    size = 8192 if device.type == "cuda" else 2048
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    left = torch.randn(size, size, device=device, dtype=precision)
    right = torch.randn(size, size, device=device, dtype=precision)
    return synchronize(lambda: left @ right, device), 2.0 * size**3


def matrix_product_speed(device: "torch.device", repeats: int) -> float:
    """Return the FLOP/s of a large matrix product, in the precision that models use there."""
    product, flops = matrix_product(device)
    return flops / interleave({"product": product}, repeats)["product"]


# Memory (Linux only)


def process_kb(field: str, pid: int | str = "self") -> int:
    """Return a field of the kernel's account of a process, such as VmRSS, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(f"no {field} in the status of process {pid}")


def peak_growth(work: Callable[[], object]) -> float:
    """Return by how many MiB the resident memory of this process grows at most during the work."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = process_kb("VmRSS")
    work()
    return (process_kb("VmHWM") - before) / 1024


def anonymous_growth(work: Callable[[], object]) -> float:
    """Return by how many MiB memory that is no mapped file grows at most during the work."""
    before = process_kb("RssAnon")
    sizes = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            sizes.append(process_kb("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (max(sizes) - before) / 1024


def in_new_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of a module in a new process, whose memory holds nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        return processes.submit(function, *arguments).result()


# Goals


def at_least(goal: float, result: float) -> Row:
    """Return the columns `goal` and `met` of a result that should be large."""
    return {"goal": f"at least {goal:g}", "met": bool(result >= goal)}


def at_most(goal: float, result: float) -> Row:
    """Return the columns `goal` and `met` of a result that should be small."""
    return {"goal": f"at most {goal:g}", "met": bool(result <= goal)}


# Records


def run_once(path: Path, run: Callable[[], list[Row]]) -> list[Row]:
    """Run unless the file has the result already, and return the result."""
    if not path.exists():
        rows = run()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1))
    return json.loads(path.read_text())


def write_results(out: Path | None, rows: Sequence[Row]) -> None:
    """Print rows of a result table; write them with command, commit, machine and date.

    Parameters
    ----------
    out
        The JSON file; None writes nothing.
    rows
        Rows of the table. Values are numbers, texts, or what `benchmarks.render` shows of both.
    """
    print(json.dumps(list(rows), indent=2, ensure_ascii=False))
    if out is None:
        return
    record = {
        "command": this_command(),
        "commit": this_commit(),
        "machine": this_machine(),
        "date": time.strftime("%Y-%m-%d"),
        "values": list(rows),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def this_command() -> str:
    """Return the command that started this process."""
    return " ".join(["python", *sys.orig_argv[1:]])


def this_commit() -> str:
    """Return the commit of the working tree, marked if tracked files differ from it."""
    name = _git("rev-parse", "--short=7", "HEAD")
    if not name:
        return "unknown"
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return f"{name} with changes" if changes else name


def this_machine() -> str:
    """Describe cores, GPU, versions, and what else runs."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value for key, _, value in (line.partition(": ") for line in lines)}
    model = fields.get("model name", platform.processor() or platform.machine())
    flags = fields.get("flags", "").split()
    units = [name for flag, name in VECTOR_UNITS.items() if flag in flags]
    parts = [f"{os.cpu_count()} cores of {model}", *units[-2:], *_gpu()]
    parts.append(f"Python {platform.python_version()}")
    for package in ("numpy", "torch"):
        if package in sys.modules:
            parts.append(f"{package} {sys.modules[package].__version__}")
    parts.append(f"load {os.getloadavg()[0]:.1f}")
    return ", ".join(parts)


def _gpu() -> list[str]:
    torch_module = sys.modules.get("torch")
    if torch_module is None or not torch_module.cuda.is_available():
        return []
    return [torch_module.cuda.get_device_name()]


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
