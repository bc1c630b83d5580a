"""What both stages do with stores before their first step: open, check, rank, and fit batches to their size."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stp.data.pairs import CELLS
from stp.data.ranking import rank_stores, score_stores
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore, trainable
from stp.genes.vocabulary import Vocabulary
from stp.models.device import inference
from stp.models.gene import GeneEncoder
from stp.models.stamp import Stamp
from stp.train.config import AlignConfig, LoopConfig
from stp.train.engine.run_dir import RunDir

Stores = Iterable[str | Path]
ENCODED_AT_A_TIME = 256


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Stores to train on or to validate with.

    Parameters
    ----------
    name, stores
        What they are for, and the stores.
    rows
        Of each store, the spots that detect enough genes.
    tokens
        Of all their spots; none where no gene encoder reads them.
    """

    name: str
    stores: list[SpotStore]
    rows: list[np.ndarray]
    tokens: SpotFile | None = None

    @classmethod
    def open(cls, min_genes: int, name: str, stores: list[SpotStore]) -> Self:
        """Choose the spots to train on, and rank nothing."""
        return cls(name, stores, trainable(stores, min_genes))

    @classmethod
    def open_tokenized(
        cls,
        run: RunDir,
        vocabulary: Vocabulary,
        context_length: int,
        min_genes: int,
        name: str,
        stores: list[SpotStore],
    ) -> Self:
        """Rank all spots into a file of the run, which all its processes map."""
        rows = trainable(stores, min_genes)
        tokens = SpotFile(
            run.scratch / f"{name}.tokens", [len(store) for store in stores], context_length
        )
        run.on_main_process(tokens.create)
        rank_stores(stores, vocabulary, tokens, rank=run.world.rank, size=run.world.size)
        run.world.wait()
        rows = [mine[tokens[number][mine, 0] > 0] for number, mine in enumerate(rows)]
        if not sum(map(len, rows)):
            raise ValueError(
                "no gene of the stores is in the vocabulary; fit one of their species to them"
            )
        return cls(name, stores, rows, tokens)

    def encode_genes(self, run: RunDir, encoder: GeneEncoder, config: LoopConfig) -> SpotFile:
        """Encode the genes of all spots into a file of the run: a frozen encoder gives the same each epoch."""
        assert self.tokens is not None
        features = self._file(run, "features", encoder.width)
        rows, world = features.writable(), run.world
        with inference(encoder, world.device, config.precision) as device:
            for start in list(range(0, len(rows), ENCODED_AT_A_TIME))[world.rank :: world.size]:
                part = slice(start, start + ENCODED_AT_A_TIME)
                rows[part] = (
                    encoder(torch.from_numpy(self.tokens.array[part]).to(device))
                    .float()
                    .cpu()
                    .numpy()
                )
        world.wait()
        return features

    def score_gene_sets(
        self, run: RunDir, vocabulary: Vocabulary, sets: Mapping[str, np.ndarray]
    ) -> SpotFile:
        """Score gene sets in all spots into a file of the run."""
        scores = self._file(run, "pathways", len(sets))
        score_stores(
            self.stores,
            vocabulary,
            list(sets.values()),
            scores,
            rank=run.world.rank,
            size=run.world.size,
        )
        run.world.wait()
        return scores

    def map_images(self, run: RunDir) -> None:
        """Decode all images into files of the run, which its processes map; patches are cut from these from now on."""
        folders = [
            run.scratch / f"{self.name}.{number}.pixels" for number in range(len(self.stores))
        ]
        run.on_main_process(partial(_require_room, self.stores, run.scratch))
        todo = list(zip(self.stores, folders, strict=True))
        for store, folder in todo[run.world.rank :: run.world.size]:
            store.write_pixels(folder)
        run.world.wait()
        for store, folder in todo:
            store.map_pixels(folder)

    def _file(self, run: RunDir, kind: str, width: int) -> SpotFile:
        file = SpotFile(
            run.scratch / f"{self.name}.{kind}",
            [len(store) for store in self.stores],
            width,
            np.float32,
        )
        run.on_main_process(file.create)
        return file


def _require_room(stores: list[SpotStore], folder: Path) -> None:
    needed, free = sum(store.n_pixel_bytes for store in stores), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the decoded images of {len(stores)} stores take {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB left; choose an output_dir on a larger disk"
        )


def open_stores(
    stores: Stores, validation: Stores, table_key: str
) -> tuple[list[SpotStore], list[SpotStore]]:
    """Open the stores to train on and to validate with; refuse one path alone, no store to train on, one twice."""
    for name, paths in (("stores", stores), ("validation", validation)):
        if isinstance(paths, str | Path):
            raise TypeError(f"{name} is one path, {paths}; pass a list of paths")
    training, held_out = (
        [SpotStore(path, table_key) for path in paths] for paths in (stores, validation)
    )
    if not training:
        raise ValueError(
            "there is no store to train on: the list is empty; does the pattern match?"
        )
    count = Counter(store.path.resolve() for store in [*training, *held_out])
    if twice := [str(path) for path, times in count.items() if times > 1]:
        raise ValueError(
            f"{', '.join(twice)} is given more than once; a store is trained on or validated with, and counts once"
        )
    return training, held_out


def require(stores: Sequence[SpotStore], part: str, purpose: str) -> None:
    """Refuse stores without a part, by name."""
    lacking = [str(store.path) for store in stores if getattr(store, part) is None]
    if lacking:
        missing = {"pyramid": "an image", "coordinates": "spot coordinates"}[part]
        raise ValueError(
            f"{purpose} needs {missing}, which these stores lack: {', '.join(lacking)}; write them again with it"
        )
    for store in stores:
        if store.coordinates is not None and not np.isfinite(store.coordinates).all():
            raise ValueError(
                f"{store.path} has spots without finite coordinates; write it again without them"
            )


def require_image(stores: Sequence[SpotStore], um_per_px: float) -> None:
    """Refuse stores whose image is much coarser than patches are wanted, or lacks chunks under spots, by name."""
    for store in stores:
        assert (
            store.pyramid is not None and store.coordinates is not None
        )  # or `require` refused it
        try:
            store.pyramid.check_scale(um_per_px)
            for scale in (um_per_px, um_per_px * CELLS):
                store.pyramid.check_chunks(store.coordinates, scale)
        except ValueError as error:
            raise ValueError(f"{store.path}: {error}") from error


def store_fingerprint(
    training: list[SpotStore], held_out: list[SpotStore], table_key: str
) -> dict[str, Any]:
    """Tell stores, and what they hold, for `settings`: a store that was written anew makes another run."""
    return {
        "stores": [str(store.path) for store in training],
        "validation": [str(store.path) for store in held_out],
        "table_key": table_key,
        "contents": [store.digest for store in (*training, *held_out)],
    }


def described(stage: str, train: Corpus, held_out: Corpus | None) -> str:
    """Return the line of a model card that tells what a stage was trained on."""
    said = f"{stage}: {_described(train)}"
    return f"{said}; weights chosen on {_described(held_out)}" if held_out else said


def _described(corpus: Corpus) -> str:
    return f"{sum(map(len, corpus.rows))} spots of {', '.join(store.path.name for store in corpus.stores)}"


def require_full_batches(stores: list[SpotStore], config: AlignConfig) -> None:
    """Raise ValueError if no store has the spots of one slide that enter a batch together."""
    together = config.spots_per_slide
    if max(map(len, trainable(stores, config.min_genes))) < together:
        raise ValueError(
            f"no store has {together} spots that detect {config.min_genes} genes to enter a batch together; "
            "lower spots_per_slide or min_genes"
        )


def alignment_targets(
    run: RunDir, corpus: Corpus, stamp: Stamp, sets: Mapping[str, np.ndarray], config: AlignConfig
) -> dict[str, SpotFile]:
    """Compute what images are aligned with, by name."""
    targets: dict[str, SpotFile] = {}
    if stamp.gene_encoder is not None and corpus.tokens is not None:
        frozen = config.trained != "all"
        targets["genes"] = (
            corpus.encode_genes(run, stamp.gene_encoder, config) if frozen else corpus.tokens
        )
    if sets:
        targets["pathways"] = corpus.score_gene_sets(run, stamp.vocabulary, sets)
    return targets
