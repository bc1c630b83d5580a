"""Slides and training runs of the learning curves."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import spatialdata

import stp
from benchmarks.accuracy.small_variants import make_image
from benchmarks.measure import Result, Row
from stp.models import GeneEncoder, GeneEncoderConfig, Stamp
from stp.train import AlignConfig, PretrainConfig

UM_PER_PX = 1.75
IMAGE_SIZE = 64  # pixels of a patch, 112 µm
SLIDES_OF_A_SEED = 1000  # the first seed of training slides; seeds below are of test slides

STAMP = "Stamp"
LONGER = "Stamp, longer training"

GENE = GeneEncoderConfig(context_length=96, width=64, depth=2, n_heads=4, ffn_width=128)
IMAGE = make_image(IMAGE_SIZE, IMAGE_SIZE * UM_PER_PX)
ALIGN = dataclasses.replace(AlignConfig.small(), trained="all", stain_jitter=0.2)


@dataclasses.dataclass(frozen=True)
class Training:
    """Training slides, and the passes over them.

    Parameters
    ----------
    n_slides
        Number of training slides.
    pretrain, align
        Number of passes of the two stages.
    is_longer
        Whether these are more passes than those of the curve.
    """

    n_slides: int
    pretrain: int
    align: int
    is_longer: bool = False

    @property
    def name(self) -> str:
        """The number of slides, and whether training is longer."""
        return f"{self.n_slides} slides" + ", longer" * self.is_longer

    @property
    def method(self) -> str:
        """Name of the method in tables."""
        return LONGER if self.is_longer else STAMP


# More slides have more steps in a pass. So the number of steps grows with the number of slides.
# The last has as many steps on 5 slides as there are on 80.
TRAININGS = (
    Training(5, 10, 24),
    Training(20, 4, 8),
    Training(80, 3, 5),
    Training(5, 48, 80, is_longer=True),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where a run is, and how large its slides are.

    Parameters
    ----------
    folder
        Folder for stores, models and scores.
    side
        Spots down and across a slide, before those that are not on tissue are left out.
    """

    folder: Path
    side: int

    def write_stores(self, seeds: range) -> list[Path]:
        """Write a slide of each seed as a store, unless it is there; return the paths."""
        paths = [self.folder / "stores" / f"slide_{seed}.zarr" for seed in seeds]
        for seed, path in zip(seeds, paths, strict=True):
            if not path.exists():
                slide = stp.datasets.synthetic_visium(
                    seed=seed, n_rows=self.side, n_cols=self.side, name=path.stem
                )
                stp.io.write_store(slide, path, patch_um_per_px=UM_PER_PX)
        return paths

    def training_stores(self, seed: int, n_slides: int) -> list[Path]:
        """Return the first stores of a seed."""
        first = SLIDES_OF_A_SEED * (seed + 1)
        return self.write_stores(range(first, first + n_slides))

    def train(self, training: Training, seed: int) -> tuple[Stamp, Row]:
        """Pretrain and align; the last epoch counts. Return the CPU seconds of both, too."""
        stores = self.training_stores(seed, training.n_slides)
        folder = self.folder / "models" / f"{training.name}, {seed}"
        pretrain_config = dataclasses.replace(PretrainConfig.small(training.pretrain), seed=seed)
        align_config = dataclasses.replace(ALIGN, epochs=training.align, seed=seed)
        vocabulary = measured_genes(stores)

        def pretrain() -> GeneEncoder:
            return stp.train.pretrain(
                stores, folder / "genes", vocabulary=vocabulary, model=GENE, config=pretrain_config
            )

        genes, seconds_pretrain = in_seconds(pretrain)

        def align() -> Stamp:
            return stp.train.align(
                stores,
                folder / "stamp",
                gene_encoder=genes,
                image_encoder=IMAGE,
                config=align_config,
            )

        stamp, seconds_align = in_seconds(align)
        return stamp, {"pretrain_s": seconds_pretrain, "align_s": seconds_align}


def measured_genes(stores: list[Path]) -> stp.Vocabulary:
    """Return a vocabulary of the genes that the stores measure, with their means."""
    genes = stp.Vocabulary.default().fit(stores)
    is_measured = genes.n_detected > 0
    measured = stp.Vocabulary.from_genes(genes.gene_ids[is_measured], genes.symbols[is_measured])
    return measured.fit(stores)


def read_slides(stores: list[Path]) -> list[spatialdata.SpatialData]:
    """Return stores as slides."""
    return [spatialdata.read_zarr(store) for store in stores]


def in_seconds(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a function returns, and the CPU seconds it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start
