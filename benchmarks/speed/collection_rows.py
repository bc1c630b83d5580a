"""Rows of the table of `benchmarks.speed.collection`, and what they mean for millions of spots."""

from collections.abc import Iterator

import numpy as np

from benchmarks.measure import Row, at_least, at_most

N_SLIDES = 1982  # of the paper
N_SPOTS = 5.75e6
SLIDE_MEGAPIXELS = 168  # of the capture area of Visium at 0.5 µm per pixel
COARSE = 1 / 9  # pixels of the coarser level of a store
TOKEN_BYTES = 3000  # of the tokens of a spot, in the scratch folder of a run
MAX_RATIO = 1.5
MAX_MB = 1500
MIN_SPEEDUP = 1.6


def compare_preparing(one: Row, one_core: Row, two: Row, plain: Row) -> Iterator[Row]:
    """Return the rows of the table about preparing."""
    runs = {"1 worker": one, "1 worker on one core": one_core, "2 workers": two}
    for name, run in runs.items():
        rate = round(run["per_minute"], 1)
        yield {"measured": f"prepare, {name}", "result": rate, "unit": "stores/min"}
    speedup = round(two["per_minute"] / one["per_minute"], 2)
    yield {
        "measured": "prepare, two workers over one, which uses both cores too",
        "result": speedup,
        "unit": "times",
    }
    speedup = round(two["per_minute"] / one_core["per_minute"], 2)
    yield {
        "measured": "prepare, two workers over one on one core",
        "result": speedup,
        "unit": "times",
        **at_least(MIN_SPEEDUP, speedup),
    }
    names = one["seconds_of"].keys() & plain["seconds_of"].keys()
    # Medians, because the first store of a process waits for imports and compiled kernels.
    prepared = np.median([one["seconds_of"][name] for name in names])
    copied = np.median([plain["seconds_of"][name] for name in names])
    resampled = np.median([plain["resampling"][name] for name in names])
    compressed = np.median([plain["compressing"][name] for name in names])
    least = copied + resampled + compressed
    ratio = round(float(prepared / copied), 2)
    yield {
        "measured": "prepare, over reading the sources and writing the same bytes",
        "result": ratio,
        "unit": "times",
        **at_most(MAX_RATIO, ratio),
    }
    parts = {
        "reading the source and writing the same bytes": copied,
        "resampling the pixels": resampled,
        "compressing the pixels": compressed,
    }
    for name, part in parts.items():
        yield {"measured": f"{name} of a store", "result": round(float(part), 2), "unit": "s"}
    yield {
        "measured": "reading, resampling, compressing and writing, over reading and writing",
        "result": round(float(least / copied), 2),
        "unit": "times",
    }
    ratio = round(float(prepared / least), 2)
    yield {
        "measured": "prepare, over reading, resampling, compressing and writing",
        "result": ratio,
        "unit": "times",
    }
    megabytes = round(max(one["megabytes"], two["megabytes"]))
    yield {
        "measured": "prepare, memory of the largest process",
        "result": megabytes,
        "unit": "MB",
        **at_most(MAX_MB, megabytes),
    }
    n_files = max(one["n_files"], two["n_files"])
    yield {"measured": "prepare, open files of a process", "result": n_files, "unit": "files"}


def describe_start(start: Row, n_stores: int) -> Iterator[Row]:
    """Return the rows of the table about the start of a training."""
    facts = {
        "time to the first step": (round(start["seconds"], 1), "s"),
        "open files of a process": (start["n_files"], "files"),
        "memory of the largest process": (round(start["megabytes"]), "MB"),
    }
    for name, (result, unit) in facts.items():
        yield {
            "measured": f"pretraining, {n_stores:,} stores, {name}",
            "result": result,
            "unit": unit,
        }


def extrapolate(one: Row, two: Row, stores: Row) -> Iterator[Row]:
    """Return what 5.75 million spots on 1,982 slides would take."""
    total = N_SLIDES * SLIDE_MEGAPIXELS  # megapixels
    seconds = float(np.median(list(one["seconds_of"].values())))
    gigabytes = total * stores["megabytes"] / stores["megapixels"] / 1000
    yield {
        "measured": "5.75 million spots, stores on disk",
        "result": round(gigabytes),
        "unit": "GB",
    }
    n_files = round(N_SLIDES * stores["n_files"])
    yield {"measured": "5.75 million spots, files on disk", "result": n_files, "unit": "files"}
    for n_workers in (1, 8, 64):
        hours = total * seconds / stores["megapixels"] / n_workers / 3600
        name = f"5.75 million spots, {n_workers} worker{'s' if n_workers > 1 else ''}"
        rate = round(1000 * gigabytes / hours / 3600, 1)
        memory = round(n_workers * max(one["megabytes"], two["megabytes"]) / 1000, 1)
        yield {"measured": f"{name}, preparing", "result": round(hours, 1), "unit": "h"}
        yield {"measured": f"{name}, writing", "result": rate, "unit": "MB/s"}
        yield {"measured": f"{name}, memory of all", "result": memory, "unit": "GB"}
    scratch = round(N_SPOTS * TOKEN_BYTES / 1e9)
    yield {"measured": "5.75 million spots, tokens of a run", "result": scratch, "unit": "GB"}
    scratch = round(3 * total * (1 + COARSE) / 1000)
    yield {"measured": "5.75 million spots, images of a run", "result": scratch, "unit": "GB"}
