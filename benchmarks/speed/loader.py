"""What reading from disk costs stage two: steps fed from stores beside the same steps on batches in memory.

    python -m benchmarks.loader --stores results/alignment/stores/*.zarr

Reading is that of training, by as many processes as `--workers` says, which start once and take a step before time is
taken. All ways to feed the steps are interleaved; figures are the median. Then the memory that opening and reading
takes, beyond what processes share, as stores grow in number: the same ones, several times (Linux only).
"""

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmarks.align import build
from benchmarks.encoder import status, synchronized
from benchmarks.tokenize import interleave
from stp.data.pairs import PairDataset
from stp.data.samplers import SpotSampler
from stp.data.store import SpotStore
from stp.genes.vocabulary import Vocabulary
from stp.models.device import choose_device
from stp.train.config import AlignConfig
from stp.train.corpus import Corpus
from stp.train.engine.loop import Batch, make_optimizer, read_batches, training_step
from stp.train.engine.processes import Processes
from stp.train.engine.run_dir import RunDir
from stp.train.tasks import Alignment


def reader(
    run: RunDir, options: argparse.Namespace, copies: int = 1
) -> Callable[[AlignConfig], Iterator[list[Batch]]]:
    """Rank spots and decode images as training does when it starts; return what reads batches, as many as are asked."""
    vocabulary = Vocabulary.default().fit(options.stores)
    stores = [SpotStore(path) for path in options.stores * copies]
    corpus = Corpus.open_tokenized(run, vocabulary, options.length, 1, "train", stores)
    corpus.map_images(run)
    window = {"image_size": options.image_size, "um_per_px": options.um_per_px, "seed": 0}
    dataset = PairDataset(corpus.stores, {"genes": corpus.tokens}, rotate=True, **window)
    sampler = SpotSampler(corpus.rows, options.batch, seed=0)
    steps_in = [len(sampler.batches(0))] * 1000  # more epochs than are read

    def read(config: AlignConfig) -> Iterator[list[Batch]]:
        return (
            batches for _, batches in read_batches(dataset, sampler, steps_in, 0, 1, config, run)
        )

    return read


def compare(run: RunDir, options: argparse.Namespace) -> dict[str, float]:
    """Return the pairs per second of each way to feed the same steps, and its share of those in memory."""
    device, read = run.world.device, reader(run, options)
    stamp, config = build({}, options)
    task = Alignment(stamp.to(device))
    optimizer = make_optimizer(task, config)
    steps = islice(read(config), 4)
    kept = [
        [{name: one.to(device) for name, one in batch.items()} for batch in step] for step in steps
    ]
    feeds = {
        f"{n} workers": read(dataclasses.replace(config, n_workers=n)) for n in options.workers
    }
    feeds["in memory"] = cycle(kept)

    def train(feed: Iterator[list[Batch]], n_steps: int = options.steps) -> None:
        for batches in islice(feed, n_steps):
            training_step(task, optimizer, batches, config, run.world)

    for feed in feeds.values():
        train(feed, 1)
    runs = {name: synchronized(partial(train, feed), device) for name, feed in feeds.items()}
    seconds, n_pairs = interleave(runs, options.repeats), options.steps * options.batch
    rates = {f"{name}, pairs/s": round(n_pairs / value, 2) for name, value in seconds.items()}
    return rates | {
        f"{name} / in memory": round(seconds["in memory"] / seconds[name], 3)
        for name in feeds
        if "workers" in name
    }


def memory(options: argparse.Namespace, copies: int) -> int:
    """Return the MB of its own by which a process grows that opens the stores and reads from them."""
    with new_run() as run:
        before = status("RssAnon")
        read = reader(run, options, copies)(AlignConfig())
        sizes = [status("RssAnon") for _ in islice(read, options.steps)]
    return round((max(sizes) - before) / 1024)


@contextmanager
def new_run() -> Iterator[RunDir]:
    """Open a run in a folder that goes with it."""
    world = Processes(0, 1, choose_device(None))
    with (
        tempfile.TemporaryDirectory() as folder,
        RunDir(folder, {}, resume=False, world=world) as run,
    ):
        yield run


def main(arguments: list[str] | None = None) -> dict:
    """Compare ways to feed the steps, then the memory of few and of many stores; prints and returns the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stores", type=Path, nargs="+", required=True, help="training stores with images"
    )
    parser.add_argument("--um-per-px", type=float, default=0.5, help="scale of patches")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=256, help="tokens of a spot, at most")
    parser.add_argument("--gene-width", type=int, default=256)
    parser.add_argument("--gene-depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="of a measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument(
        "--copies", type=int, nargs="+", default=(1, 4, 16), help="of the stores, for memory"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    with new_run() as run:
        results = compare(run, options)
    for n in options.copies:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
            name = f"{n * len(options.stores)} stores, MB"
            results[name] = processes.submit(memory, options, n).result()
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
