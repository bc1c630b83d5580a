"""What does reading from disk cost alignment? Steps fed from stores, next to steps fed from memory.

    python -m benchmarks.speed.loader --stores runs/alignment/stores/*.zarr

Reading is that of training, by as many processes as `--workers` says. They start once and take a
step before time is taken. All ways to feed the steps are interleaved; times are medians. Then the
memory of a process that opens and reads stores, as these grow in number (Linux only).
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import stp
from benchmarks.measure import (
    Row,
    at_least,
    in_new_process,
    interleave,
    make_parser,
    process_kb,
    silence_logger,
    synchronize,
    write_results,
)
from benchmarks.speed.alignment_cost import Form, build
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotSampler
from stp.data.store import SpotStore
from stp.models.device import choose_device
from stp.train import AlignConfig
from stp.train.corpus import Corpus
from stp.train.engine.processes import Processes
from stp.train.engine.protocols import Batch
from stp.train.engine.reading import read_batches
from stp.train.engine.run_dir import RunDir
from stp.train.engine.steps import make_optimizer, training_step
from stp.train.tasks import Alignment

MIN_SHARE = 0.95  # goal: speed of steps fed from disk over that of steps fed from memory
N_EPOCHS = 1000  # more than are read
Reader = Callable[[AlignConfig], Iterator[list[Batch]]]


def make_reader(run: RunDir, options: argparse.Namespace, copies: int = 1) -> Reader:
    """Rank spots and decode images as training does at its start; return what reads batches."""
    vocabulary = stp.Vocabulary.default().fit(options.stores)
    stores = [SpotStore(path) for path in options.stores * copies]
    corpus = Corpus.open_tokenized(
        "train", stores, 1, vocabulary=vocabulary, context_length=options.length, run=run
    )
    corpus.map_images(run)
    dataset = PairDataset(
        corpus.stores,
        {"genes": corpus.tokens},
        image_size=options.image_size,
        um_per_px=options.um_per_px,
        seed=0,
        rotate=True,
    )
    sampler = SpotSampler(corpus.rows, options.batch, seed=0)
    steps_per_epoch = [len(sampler.batches(0))] * N_EPOCHS

    def read(config: AlignConfig) -> Iterator[list[Batch]]:
        steps = read_batches(
            dataset,
            sampler,
            run,
            steps_per_epoch=steps_per_epoch,
            n_taken=0,
            accumulate=1,
            n_workers=config.n_workers,
        )
        for _, batches in steps:
            yield batches

    return read


def compare(run: RunDir, options: argparse.Namespace) -> Iterator[Row]:
    """Compare the pairs per second of each way to feed the same steps."""
    device = run.processes.device
    read = make_reader(run, options)
    stamp, config = build(Form(), options)
    task = Alignment(stamp.to(device))
    optimizer = make_optimizer(task, config)
    in_memory = []
    for batches in islice(read(config), 4):
        in_memory.append(
            [{name: values.to(device) for name, values in batch.items()} for batch in batches]
        )
    feeds: dict[str, Iterator[list[Batch]]] = {}
    for n_workers in options.workers:
        workers = dataclasses.replace(config, n_workers=n_workers)
        feeds[f"{n_workers} workers"] = read(workers)
    feeds["memory"] = cycle(in_memory)

    def train(feed: Iterator[list[Batch]], n_steps: int) -> None:
        for batches in islice(feed, n_steps):
            training_step(task, optimizer, batches, config, run.processes)

    for feed in feeds.values():
        train(feed, 1)
    runs = {
        name: synchronize(partial(train, feed, options.steps), device)
        for name, feed in feeds.items()
    }
    seconds = interleave(runs, options.repeats)
    for name in feeds:
        share = round(seconds["memory"] / seconds[name], 3)
        row = {
            "measured": f"fed by {name}",
            "pairs/s": round(options.steps * options.batch / seconds[name], 2),
            "result": share,
            "unit": "of the speed from memory",
        }
        yield row if name == "memory" else row | at_least(MIN_SHARE, share)


def measure_memory(options: argparse.Namespace, copies: int) -> Row:
    """Return by how much memory grows in a process that opens stores and reads from them."""
    silence_logger()
    with new_run() as run:
        before = process_kb("RssAnon")
        batches = make_reader(run, options, copies)(AlignConfig())
        sizes = [process_kb("RssAnon") for _ in islice(batches, options.steps)]
    return {
        "measured": f"memory, {copies * len(options.stores)} stores",
        "result": round((max(sizes) - before) / 1024),
        "unit": "MB",
    }


@contextmanager
def new_run(device: str | None = None) -> Iterator[RunDir]:
    """Open a run directory that is deleted at the end; by default it trains on a GPU."""
    alone = Processes(0, 1, choose_device(device))
    with tempfile.TemporaryDirectory() as folder:
        with RunDir(folder, {}, resume=False, processes=alone) as run:
            yield run


def main(arguments: list[str] | None = None) -> list[Row]:
    """Compare ways to feed the steps, then memory; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--stores", type=Path, nargs="+", required=True, help="training stores with images"
    )
    parser.add_argument("--um-per-px", type=float, default=0.5, help="µm per pixel of patches")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=256, help="tokens of a spot, at most")
    parser.add_argument("--gene-width", type=int, default=256)
    parser.add_argument("--gene-depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="steps of a measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument(
        "--copies", type=int, nargs="+", default=(1, 4, 16), help="copies of the stores, for memory"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    silence_logger()
    with new_run() as run:
        rows = list(compare(run, options))
    rows += [in_new_process(measure_memory, options, copies) for copies in options.copies]
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
