"""What does each step cost on a slide of half a million bins? Time, and memory of its own.

    python -m benchmarks.speed.large_slides --folder runs/large_slides

The slides are synthetic: a square grid of bins of 8 µm with about 300 genes each, and an image of
0.5 µm per pixel. Every step runs in its own process (Linux only), first on a small slide, which
compiles and imports. Steps whose results are in the folder are not run again.

The memory of a step is by how much the process grows at most, minus the size of its results.
Seconds are those of the CPUs, so that other work on the machine counts little.
"""

import time
from functools import partial
from pathlib import Path

from benchmarks.measure import (
    Row,
    at_most,
    in_new_process,
    make_parser,
    peak_growth,
    run_once,
    silence_logger,
    write_results,
)
from benchmarks.speed.large_slides_steps import STEPS
from benchmarks.speed.large_slides_tables import write_slide

SIZES = (50_000, 150_000, 500_000)
SMALL = 2_000  # bins of the slide on which a step runs first
MAX_MEGABYTES = 1024.0  # goal: memory over inputs and outputs
MAX_GROWTH = 1.2  # goal: time per bin, over that of the next smaller slide
MIN_SECONDS = 2.0  # shorter times are not compared


def measure_step(name: str, folder: Path, n_bins: int) -> list[Row]:
    """Run a step on a small slide, then measure it on the slide; for a process of its own."""
    silence_logger()
    make_step = STEPS[name]
    make_step(folder / str(SMALL)).run()
    step = make_step(folder / str(n_bins))
    start = time.perf_counter()
    cpu_start = time.process_time()
    growth = peak_growth(step.run)
    cpu_seconds = time.process_time() - cpu_start
    seconds = time.perf_counter() - start
    outputs = step.output_bytes() / 2**20
    over = growth - outputs
    return [
        {
            "measured": f"{name}, {n_bins:,} bins",
            "CPU s": round(cpu_seconds, 1),
            "time, s": round(seconds, 1),
            "inputs, MB": round(step.input_bytes / 2**20),
            "outputs, MB": round(outputs),
            "result": round(over),
            "unit": "MB over",
            **at_most(MAX_MEGABYTES, over),
        }
    ]


def compare_sizes(rows: list[Row], sizes: list[int]) -> list[Row]:
    """Compare the seconds per bin of the largest slide with those of the next smaller one."""
    if len(sizes) < 2:
        return []
    small, large = sorted(sizes)[-2:]
    seconds = {row["measured"]: row["CPU s"] for row in rows}
    growth = []
    for measured, large_seconds in seconds.items():
        name, _, size = measured.partition(", ")
        small_seconds = seconds[f"{name}, {small:,} bins"]
        if size == f"{large:,} bins" and small_seconds >= MIN_SECONDS:
            ratio = round(large_seconds / large / (small_seconds / small), 2)
            growth.append(
                {
                    "measured": f"{name}, {large:,} bins, time per bin",
                    "result": ratio,
                    "unit": f"times that of {small:,}",
                    **at_most(MAX_GROWTH, ratio),
                }
            )
    return growth


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure every step at every size; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder for slides and results")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bins of the slides")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args(arguments)
    for n_bins in (SMALL, *options.sizes):
        in_new_process(write_slide, options.folder / str(n_bins), n_bins)
    rows = []
    for name in options.steps:
        for n_bins in options.sizes:
            file = options.folder / "results" / f"{name}_{n_bins}.json"
            step = partial(in_new_process, measure_step, name, options.folder, n_bins)
            rows += run_once(file, step)
    rows += compare_sizes(rows, options.sizes)
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
