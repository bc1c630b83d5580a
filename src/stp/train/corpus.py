"""The stores of a run: opened, checked, ranked into tokens, and described for the model card."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch

from stp._log import count, preview
from stp._progress import track
from stp._text import readable
from stp.data.neighborhoods import reach, spacing
from stp.data.pairs import CELLS
from stp.data.ranking import rank_stores, score_stores
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore, trainable
from stp.genes.vocabulary import Vocabulary
from stp.models.device import inference
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.train.config import AlignConfig
from stp.train.engine.config import LoopConfig
from stp.train.engine.run_dir import RunDir

ENCODE_BATCH = 256  # spots that a frozen gene encoder encodes at a time
N_NAMES = 20  # stores of a collection that a model card lists
PARTS = {"pyramid": "an image", "coordinates": "spot coordinates"}


@dataclass(frozen=True)
class Corpus:
    """Stores to train on or to validate with.

    Parameters
    ----------
    name
        What the stores are for: "train" or "validation".
    stores
        The stores.
    rows
        Rows of the spots that detect enough genes, one array per store.
    tokens
        Tokens of all spots of the stores; None if no gene encoder reads them.
    origin
        Collection that the stores are from, in a line; "" without.
    """

    name: str
    stores: list[SpotStore]
    rows: list[np.ndarray]
    tokens: SpotFile | None = None
    origin: str = ""

    @classmethod
    def open(cls, name: str, stores: list[SpotStore], min_genes: int, *, origin: str = "") -> Self:
        """Choose the spots that detect at least `min_genes` genes, without ranking them."""
        return cls(name, stores, trainable(stores, min_genes), origin=origin)

    @classmethod
    def open_tokenized(
        cls,
        name: str,
        stores: list[SpotStore],
        min_genes: int,
        *,
        vocabulary: Vocabulary,
        context_length: int,
        run: RunDir,
        origin: str = "",
    ) -> Self:
        """Choose the spots as `open` does, and rank all into a file that every process maps."""
        corpus = cls.open(name, stores, min_genes)
        processes = run.processes
        tokens = corpus._new_file(run, "tokens", context_length, np.uint16)
        rank_stores(stores, vocabulary, tokens, rank=processes.rank, size=processes.size)
        processes.wait()
        rows = [
            store_rows[tokens[number][store_rows, 0] > 0]
            for number, store_rows in enumerate(corpus.rows)
        ]
        if not sum(map(len, rows)):
            raise ValueError(
                "no gene of the stores is in the vocabulary; fit a vocabulary of the right species "
                "with `Vocabulary.fit(stores)`"
            )
        return cls(name, stores, rows, tokens, origin)

    def describe(self) -> str:
        """Return how many spots of which stores are used, for a model card."""
        names = [readable(store.path.name) for store in self.stores]
        n_spots = sum(map(len, self.rows))
        if not self.origin:
            return f"{n_spots} spots of {', '.join(names)}"
        return (
            f"{n_spots} spots of {count(len(names), 'store')} of the {self.origin}: "
            f"{preview(names, N_NAMES)}"
        )

    def encode_genes(self, run: RunDir, encoder: GeneEncoder, config: LoopConfig) -> SpotFile:
        """Encode the genes of all spots into a file of the run.

        This saves time if the encoder is frozen: its features are the same in every epoch.
        """
        assert self.tokens is not None
        processes = run.processes
        features = self._new_file(run, "features", encoder.width, np.float32)
        rows = features.writable()
        starts = list(range(0, len(rows), ENCODE_BATCH))
        with inference(encoder, processes.device, config.precision) as device:
            own_starts = starts[processes.rank :: processes.size]
            for start in track(own_starts, "encode genes", "block", is_shown=processes.is_main):
                part = slice(start, start + ENCODE_BATCH)
                tokens = torch.from_numpy(self.tokens.array[part]).to(device)
                rows[part] = encoder(tokens).float().cpu().numpy()
        processes.wait()
        return features

    def score_gene_sets(
        self, run: RunDir, vocabulary: Vocabulary, gene_sets: Mapping[str, np.ndarray]
    ) -> SpotFile:
        """Score gene sets in all spots into a file of the run."""
        processes = run.processes
        scores = self._new_file(run, "pathways", len(gene_sets), np.float32)
        score_stores(
            self.stores,
            vocabulary,
            list(gene_sets.values()),
            scores,
            rank=processes.rank,
            size=processes.size,
        )
        processes.wait()
        return scores

    def map_images(self, run: RunDir) -> None:
        """Decode all images into files of the run; patches are cut from these from now on."""
        processes = run.processes
        run.on_main_process(lambda: _require_disk_space(self.stores, run.scratch))
        folders = [
            run.scratch / f"{self.name}.{number}.pixels" for number in range(len(self.stores))
        ]
        images = list(zip(self.stores, folders, strict=True))
        own_images = images[processes.rank :: processes.size]
        for store, folder in track(
            own_images, "decode images", "slide", is_shown=processes.is_main
        ):
            store.write_pixels(folder)
        processes.wait()
        for store, folder in images:
            store.map_pixels(folder)

    def _new_file(self, run: RunDir, kind: str, width: int, dtype: type) -> SpotFile:
        """Create a file of the run with a row per spot."""
        lengths = [len(store) for store in self.stores]
        file = SpotFile(run.scratch / f"{self.name}.{kind}", lengths, width, dtype)
        run.on_main_process(file.create)
        return file


def require(
    stores: Sequence[SpotStore], part: Literal["pyramid", "coordinates"], purpose: str
) -> None:
    """Raise ValueError if stores lack a part, or have spots without finite coordinates."""
    lacking = [store.source for store in stores if getattr(store, part) is None]
    if lacking:
        raise ValueError(
            f"{purpose} needs {PARTS[part]}, which these stores lack: {', '.join(lacking)}; "
            "write them again with it"
        )
    for store in stores:
        if store.coordinates is not None and not np.isfinite(store.coordinates).all():
            raise ValueError(
                f"{store.source} has spots without finite coordinates; write it again without them"
            )


def require_neighbors(
    stores: Sequence[SpotStore], min_genes: int, radius_um: float, size: int
) -> None:
    """Raise ValueError if a radius reaches too few spots for a neighborhood, or has no unit.

    Parameters
    ----------
    stores
        Stores with coordinates.
    min_genes
        Number of genes that a spot must detect to be trained on.
    radius_um
        Radius of a neighborhood in µm.
    size
        Number of spots of a neighborhood, the center included.
    """
    for store in stores:
        assert store.coordinates is not None  # see `require`
        if not store.is_in_um:
            raise ValueError(
                f"radius_um={radius_um:g} needs coordinates in µm, and those of {store.source} "
                "have no scale; write the store again with um_per_px= or spot_pitch_um="
            )
        centers = store.coordinates[store.trainable(min_genes)]
        if len(centers) < size:
            continue
        least = reach(centers, size)
        if radius_um < least:
            raise ValueError(
                f"radius_um={radius_um:g} reaches fewer than {size - 1} spots around most spots of "
                f"{store.source}, which are {spacing(centers):.3g} µm apart; pass a radius_um of "
                f"at least {math.ceil(least):g}"
            )


def require_image(stores: Sequence[SpotStore], um_per_px: float) -> None:
    """Raise ValueError if an image is too coarse for the patches, or lacks pixels under spots."""
    for store in stores:
        assert store.pyramid is not None and store.coordinates is not None  # see `require`
        try:
            store.pyramid.check_scale(um_per_px)
            for scale in (um_per_px, um_per_px * CELLS):
                store.pyramid.check_chunks(store.coordinates, scale)
        except ValueError as error:
            raise ValueError(f"{store.source}: {error}") from error


def require_full_batches(stores: list[SpotStore], config: AlignConfig) -> None:
    """Raise ValueError if no store has the spots of one slide that enter a batch together."""
    together = config.spots_per_slide
    if max(map(len, trainable(stores, config.min_genes))) < together:
        raise ValueError(
            f"no store has {together} spots that detect {config.min_genes} genes to enter a batch "
            "together; lower spots_per_slide or min_genes"
        )


def describe_stage(stage: str, train: Corpus, validation: Corpus | None) -> str:
    """Return the line of a model card on what a stage was trained on."""
    line = f"{stage}: {train.describe()}"
    return f"{line}; weights chosen on {validation.describe()}" if validation else line


def alignment_targets(
    run: RunDir,
    corpus: Corpus,
    stamp: Stamp,
    gene_sets: Mapping[str, np.ndarray],
    config: AlignConfig,
) -> dict[str, SpotFile]:
    """Compute what images are aligned with: "genes", "pathways" or both.

    The genes are tokens, or features if the gene encoder is not trained.
    """
    targets: dict[str, SpotFile] = {}
    if stamp.gene_encoder is not None and corpus.tokens is not None:
        if config.trained == "all":
            targets["genes"] = corpus.tokens
        else:
            targets["genes"] = corpus.encode_genes(run, stamp.gene_encoder, config)
    if gene_sets:
        targets["pathways"] = corpus.score_gene_sets(run, stamp.vocabulary, gene_sets)
    return targets


def _require_disk_space(stores: list[SpotStore], folder: Path) -> None:
    n_needed = sum(store.n_pixel_bytes for store in stores)
    n_free = shutil.disk_usage(folder).free
    if n_needed > n_free:
        raise OSError(
            f"the decoded images of {len(stores)} stores take {n_needed / 1e9:.1f} GB, and "
            f"{folder} has {n_free / 1e9:.1f} GB left; choose an output_dir on a larger disk"
        )
