"""The two stages of STAMP, from stores on disk to a model: pretrain and align."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stp.data.dataset import SpotStore, TokenDataset
from stp.data.pairs import PairDataset
from stp.data.samplers import GroupSampler, SpotSampler
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.image import ImageEncoderConfig
from stp.models.stamp import Stamp, StampConfig
from stp.train.config import AlignConfig, LoopConfig, Phase, Plan, PretrainConfig, fit_plan
from stp.train.loop import fit
from stp.train.run import Run
from stp.train.tasks import Alignment, MaskedGenes, NeighborhoodGenes
from stp.train.validation import masked_loss, recall
from stp.train.world import World, join
from stp.vocabulary import Vocabulary

GROUP = 9  # spots of a neighborhood, the center included
Stores = Iterable[str | Path]


def pretrain(
    stores: Stores,
    output_dir: str | Path,
    *,
    vocabulary: Vocabulary,
    model: GeneEncoderConfig = GeneEncoderConfig(),
    config: PretrainConfig = PretrainConfig(),
    validation: Stores = (),
    table_key: str = "table",
    resume: bool = True,
) -> GeneEncoder:
    """Stage one: train a gene encoder on masked genes, then with neighborhoods (paper, section 3.2).

    Parameters
    ----------
    stores
        Paths of stores written by `stp.io.write_store`.
    output_dir
        Run directory: weights, config and vocabulary as `GeneEncoder.from_pretrained` reads them, training.json,
        metrics.jsonl, and the state to resume from.
    vocabulary
        With means; see `Vocabulary.fit`.
    model, config
        Size of the encoder; phases, schedule and seed.
    validation
        Stores to choose the best epoch by: the lowest masked gene loss in the last phase.
    table_key
        Table of every store.
    resume
        Go on where a stopped run left off; the result is that of a run never stopped.

    Returns
    -------
    The best weights by validation, or the last without it, on the CPU.

    Raises
    ------
    ValueError
        A path is no training store, a store lacks coordinates for neighborhood training, the vocabulary has no
        means, or `output_dir` holds a run with other settings.
    BlockingIOError
        Another process trains in `output_dir`.
    FloatingPointError
        The loss or its gradient is not finite; names the stores of the batch, and no step is taken.
    SystemExit
        With status 0, after a checkpoint: the process was sent SIGTERM or SIGUSR1.
    """
    train, held_out = _open(stores, table_key), _open(validation, table_key)
    vocabulary.divisors()
    if any(phase.objective == "neighborhood" for phase in config.phases):
        _require(train, "coordinates", "neighborhood training")
    with join(config.device) as world:
        settings = _settings("pretrain", train, held_out, vocabulary, config, model, world)
        with Run(output_dir, settings, resume=resume, world=world) as run:
            if run.state["phase"] < len(config.phases):
                _pretrain(run, train, held_out, vocabulary, model, config)
    return GeneEncoder.from_pretrained(output_dir)


def _pretrain(
    run: Run,
    train: list[SpotStore],
    held_out: list[SpotStore],
    vocabulary: Vocabulary,
    model: GeneEncoderConfig,
    config: PretrainConfig,
) -> None:
    """Run the phases that are not done."""
    read = partial(
        TokenDataset,
        vocabulary=vocabulary,
        context_length=model.context_length,
        fraction=config.mask_fraction,
        seed=config.seed,
    )
    dataset = read(train)
    rows = _trainable(dataset, config)
    encoder = _seeded(config.seed, lambda: GeneEncoder(model, vocabulary))
    if config.log_frequency_start:
        encoder.start_heads(dataset.log_frequency(rows))
    validate = None
    if held_out:
        validated = read(held_out)
        validate = partial(masked_loss, encoder, validated, _trainable(validated, config), config)
    for number in range(run.state["phase"], len(config.phases)):
        task, sampler, plan = _phase(config.phases[number], config, encoder, train, rows, run.world)
        keep = partial(encoder.save_pretrained, run.path)
        fit(task, dataset, sampler, plan, config, run, phase=number, validate=validate, keep=keep)
    run.finish(len(config.phases))


def _phase(
    phase: Phase,
    config: PretrainConfig,
    encoder: GeneEncoder,
    stores: list[SpotStore],
    rows: list[np.ndarray],
    world: World,
) -> tuple[nn.Module, SpotSampler | GroupSampler, Plan]:
    """Return what one phase learns, in which batches."""
    if phase.objective == "masked":
        plan = _plan(rows, phase, world, stacklevel=5)
        return MaskedGenes(encoder), SpotSampler(rows, plan.batch_size, config.seed), plan
    plan = _plan(rows, phase, world, multiple=GROUP, stacklevel=5)
    task = NeighborhoodGenes(encoder, context=config.context, targets=config.targets, group_size=GROUP)
    coordinates = [store.coordinates for store in stores]
    return task, GroupSampler(coordinates, rows, plan.batch_size, config.seed, GROUP), plan


def align(
    stores: Stores,
    output_dir: str | Path,
    *,
    gene_encoder: GeneEncoder | str | Path,
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(),
    config: AlignConfig = AlignConfig(),
    validation: Stores = (),
    table_key: str = "table",
    resume: bool = True,
) -> Stamp:
    """Stage two: align an image encoder with a gene encoder on patches and regions (paper, section 3.3).

    Parameters
    ----------
    stores
        Paths of stores with an image, written by `stp.io.write_store`.
    output_dir
        Run directory: weights, config and vocabulary as `Stamp.from_pretrained` reads them, training.json,
        metrics.jsonl, and the state to resume from.
    gene_encoder
        The encoder to start from, or the folder of one; it is trained further.
    image_encoder, config
        Backbone and input; schedule and seed.
    validation
        Stores to choose the best epoch by: the highest recall@5 from image to genes.
    table_key
        Table of every store.
    resume
        Go on where a stopped run left off; the result is that of a run never stopped.

    Returns
    -------
    The best weights by validation, or the last without it, on the CPU.

    Raises
    ------
    ValueError
        A path is no training store, a store lacks an image, the vocabulary has no means, or `output_dir` holds a
        run with other settings.
    """
    genes = gene_encoder if isinstance(gene_encoder, GeneEncoder) else GeneEncoder.from_pretrained(gene_encoder)
    train, held_out = _open(stores, table_key), _open(validation, table_key)
    _require([*train, *held_out], "pyramid", "alignment")
    genes.vocabulary.divisors()
    model = StampConfig(genes.config, image_encoder, config.projection_width)
    with join(config.device) as world:
        if world.size > 1:
            raise ValueError("align runs in one process, because its negatives are those of one; start it alone")
        settings = _settings("align", train, held_out, genes.vocabulary, config, model, world)
        settings["gene_encoder"] = _digest(genes)
        with Run(output_dir, settings, resume=resume, world=world) as run:
            if run.state["phase"] < 1:
                _align(run, train, held_out, genes, model, config)
    return Stamp.from_pretrained(output_dir)


def _align(
    run: Run,
    train: list[SpotStore],
    held_out: list[SpotStore],
    genes: GeneEncoder,
    model: StampConfig,
    config: AlignConfig,
) -> None:
    stamp = _seeded(config.seed, lambda: Stamp(model, genes.vocabulary))
    stamp.gene_encoder.load_state_dict(genes.state_dict())
    read = partial(
        PairDataset,
        vocabulary=genes.vocabulary,
        context_length=genes.config.context_length,
        image_size=model.image.image_size,
        um_per_px=model.image.um_per_px,
        seed=config.seed,
    )
    dataset = read(train, turn=config.turn, stain_jitter=config.stain_jitter)
    rows = _trainable(dataset, config)
    plan = _plan(rows, config, run.world, multiple=config.spots_per_slide, stacklevel=4)
    sampler = SpotSampler(rows, plan.batch_size, config.seed, config.spots_per_slide)
    validate = None
    if held_out:
        validated = read(held_out)
        validate = partial(recall, stamp, validated, _trainable(validated, config), config)
    keep = partial(stamp.save_pretrained, run.path)
    fit(Alignment(stamp), dataset, sampler, plan, config, run, validate=validate, keep=keep)
    run.finish(1)


def _open(stores: Stores, table_key: str) -> list[SpotStore]:
    if isinstance(stores, str | Path):
        raise TypeError(f"stores is one path, {stores}; pass a list of paths")
    return [SpotStore(path, table_key) for path in stores]


def _require(stores: Sequence[SpotStore], part: str, purpose: str) -> None:
    lacking = [str(store.path) for store in stores if getattr(store, part) is None]
    if lacking:
        missing = {"pyramid": "an image", "coordinates": "spot coordinates"}[part]
        raise ValueError(
            f"{purpose} needs {missing}, which these stores lack: {', '.join(lacking)}; write them again with it"
        )


def _trainable(dataset: TokenDataset | PairDataset, config: LoopConfig) -> list[np.ndarray]:
    """Return the rows of each store that detect enough genes and have tokens."""
    rows = [store.trainable(config.min_genes) for store in dataset.stores]
    if not sum(map(len, rows)):
        raise ValueError(f"no spot of {len(rows)} stores detects {config.min_genes} genes; lower min_genes")
    rows = [mine[tokens[mine, 0] > 0] for mine, tokens in zip(rows, dataset.tokens, strict=True)]
    if not sum(map(len, rows)):
        raise ValueError("no gene of the stores is in the vocabulary; fit one of their species to them")
    return rows


def _plan(
    rows: list[np.ndarray], wanted: Phase | AlignConfig, world: World, *, multiple: int = 1, stacklevel: int
) -> Plan:
    """Fit batches, of all processes together, to the number of spots; say so where they shrink."""
    multiple, wanted_size = multiple * world.size, wanted.batch_size * world.size
    sizes = {"batch_size": wanted_size, "accumulate": wanted.accumulate, "multiple": multiple}
    plan = fit_plan(sum(map(len, rows)), epochs=wanted.epochs, **sizes)
    for note in plan.notes if world.leads else ():
        warnings.warn(note, stacklevel=stacklevel)
    return plan


def _settings(stage: str, train, held_out, vocabulary: Vocabulary, config: LoopConfig, model, world: World) -> dict:
    """Collect all that decides the result of a run; where it computes and how often it logs does not."""
    free = ("device", "n_workers", "log_every", "checkpoint_every")
    return {
        "stage": stage,
        "stores": [str(store.path) for store in train],
        "validation": [str(store.path) for store in held_out],
        "vocabulary": vocabulary.digest,
        "model": dataclasses.asdict(model),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name not in free},
        "processes": world.size,
    }


def _digest(model: nn.Module) -> str:
    """Tell weights from others."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _seeded(seed: int, build: Callable[[], Any]) -> Any:
    """Build a module from a seed, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
