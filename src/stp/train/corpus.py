"""What both stages do with stores before their first step: open, check, rank, and fit batches to their size."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from stp.data.spot_file import SpotFile, rank_stores
from stp.data.store import SpotStore
from stp.models.device import inference
from stp.models.gene import GeneEncoder
from stp.train.config import AlignConfig, LoopConfig, Phase, Plan, fit_plan
from stp.train.run import Run
from stp.train.world import World
from stp.vocabulary import Vocabulary

Stores = Iterable[str | Path]
ENCODED_AT_A_TIME = 256


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Stores to train on or to validate with.

    Parameters
    ----------
    stores, tokens
        The stores, and the tokens of all their spots.
    rows
        Of each store, the spots that detect enough genes.
    """

    stores: list[SpotStore]
    tokens: SpotFile
    rows: list[np.ndarray]

    @classmethod
    def ranked(
        cls,
        run: Run,
        vocabulary: Vocabulary,
        context_length: int,
        min_genes: int,
        name: str,
        stores: list[SpotStore],
    ) -> Self | None:
        """Rank all spots into a file of the run, which all its processes map; None without stores."""
        if not stores:
            return None
        tokens = SpotFile(run.scratch / f"{name}.tokens", [len(store) for store in stores], context_length)
        run.once(tokens.create)
        rank_stores(stores, vocabulary, tokens, rank=run.world.rank, size=run.world.size)
        run.world.wait()
        return cls(stores, tokens, _trainable(stores, tokens, min_genes))

    def encoded(self, run: Run, encoder: GeneEncoder, config: LoopConfig) -> SpotFile:
        """Encode the genes of all spots into a file of the run: a frozen encoder gives the same each epoch."""
        path = self.tokens.path.with_suffix(".features")
        features = SpotFile(path, np.diff(self.tokens.edges), encoder.width, np.float32)

        run.once(features.create)
        rows, world = features.to_fill(), run.world
        with inference(encoder, world.device, config.precision) as device:
            for start in list(range(0, len(rows), ENCODED_AT_A_TIME))[world.rank :: world.size]:
                part = slice(start, start + ENCODED_AT_A_TIME)
                rows[part] = encoder(torch.from_numpy(self.tokens.all[part]).to(device)).float().cpu().numpy()
        world.wait()
        return features


def _trainable(stores: list[SpotStore], tokens: SpotFile, min_genes: int) -> list[np.ndarray]:
    rows = [store.trainable(min_genes) for store in stores]
    if not sum(map(len, rows)):
        raise ValueError(f"no spot of {len(rows)} stores detects {min_genes} genes; lower min_genes")
    rows = [mine[tokens[number][mine, 0] > 0] for number, mine in enumerate(rows)]
    if not sum(map(len, rows)):
        raise ValueError("no gene of the stores is in the vocabulary; fit one of their species to them")
    return rows


def open_stores(stores: Stores, table_key: str) -> list[SpotStore]:
    """Open stores; one path alone is refused."""
    if isinstance(stores, str | Path):
        raise TypeError(f"stores is one path, {stores}; pass a list of paths")
    return [SpotStore(path, table_key) for path in stores]


def require(stores: Sequence[SpotStore], part: str, purpose: str) -> None:
    """Refuse stores without a part, by name."""
    lacking = [str(store.path) for store in stores if getattr(store, part) is None]
    if lacking:
        missing = {"pyramid": "an image", "coordinates": "spot coordinates"}[part]
        raise ValueError(
            f"{purpose} needs {missing}, which these stores lack: {', '.join(lacking)}; write them again with it"
        )


def fitted(corpus: Corpus, wanted: Phase | AlignConfig, world: World, *, multiple: int = 1, stacklevel: int) -> Plan:
    """Fit batches, of all processes together, to the number of spots; say so where they shrink."""
    multiple, wanted_size = multiple * world.size, wanted.batch_size * world.size
    sizes = {"batch_size": wanted_size, "accumulate": wanted.accumulate, "multiple": multiple}
    plan = fit_plan(sum(map(len, corpus.rows)), epochs=wanted.epochs, **sizes)
    for note in plan.notes if world.leads else ():
        warnings.warn(note, stacklevel=stacklevel)
    return plan


def settings(stage: str, stores, held_out, vocabulary: Vocabulary, config: LoopConfig, model, world: World) -> dict:
    """Collect all that decides the result of a run; where it computes and how often it logs does not."""
    free = ("device", "n_workers", "log_every", "checkpoint_every")
    return {
        "stage": stage,
        "stores": [str(store.path) for store in stores],
        "validation": [str(store.path) for store in held_out],
        "vocabulary": vocabulary.digest,
        "model": dataclasses.asdict(model),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name not in free},
        "processes": world.size,
    }


def digest(model: nn.Module) -> str:
    """Tell weights from others."""
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def seeded(seed: int, build: Callable[[], Any]) -> Any:
    """Build a module from a seed, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
