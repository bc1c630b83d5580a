"""Stage one, from stores on disk to a gene encoder."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from stp.data.masked_tokens import TokenDataset
from stp.data.samplers import GroupSampler, SpotSampler
from stp.genes.vocabulary import Vocabulary
from stp.models.device import build_with_seed
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.saved.card import ModelCard
from stp.models.saved.pretrained import save_with_scores
from stp.train.config import Phase, PretrainConfig
from stp.train.corpus import Corpus, Stores, described, open_stores, require, store_fingerprint
from stp.train.engine.batch_plan import BatchPlan, fitted
from stp.train.engine.loop import fit
from stp.train.engine.processes import Processes, distributed
from stp.train.engine.run_dir import RunDir, settings
from stp.train.tasks import MaskedGenes, NeighborhoodGenes
from stp.train.validation import masked_loss

GROUP = 9  # spots of a neighborhood, the center included


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

    Examples
    --------
    >>> size = stp.models.GeneEncoderConfig(
    ...     context_length=32, width=16, depth=1, n_heads=2, ffn_width=32
    ... )
    >>> config = stp.train.PretrainConfig(phases=(stp.train.Phase(batch_size=32),))
    >>> stores = ["demo/stores/train_0.zarr"]
    >>> genes = stp.train.pretrain(
    ...     stores, "runs/genes", vocabulary=vocabulary, model=size, config=config
    ... )
    >>> genes.width
    16
    """
    training, held_out = open_stores(stores, validation, table_key)
    vocabulary.divisors()
    if any(phase.objective == "neighborhood" for phase in config.phases):
        require(training, "coordinates", "neighborhood training")
    with distributed(config.device) as world:
        made_of = {"stage": "pretrain", "vocabulary": vocabulary.digest, "model": asdict(model)}
        asked = settings(
            config, world, **made_of, **store_fingerprint(training, held_out, table_key)
        )
        with RunDir(output_dir, asked, resume=resume, world=world) as run:
            if run.state["phase"] < len(config.phases):
                ranked = partial(
                    Corpus.open_tokenized, run, vocabulary, model.context_length, config.min_genes
                )
                checked = ranked("validation", held_out) if held_out else None
                _run_phases(run, ranked("train", training), checked, vocabulary, model, config)
    return GeneEncoder.from_pretrained(output_dir)


def _run_phases(
    run: RunDir,
    train: Corpus,
    held_out: Corpus | None,
    vocabulary: Vocabulary,
    model: GeneEncoderConfig,
    config: PretrainConfig,
) -> None:
    """Run the phases that are not done."""
    dataset = _dataset(train, vocabulary, config)
    encoder = build_with_seed(config.seed, lambda: GeneEncoder(model, vocabulary))
    if config.log_frequency_start:
        encoder.start_heads(dataset.log_frequency())
    validate = None
    if held_out:
        validate = partial(
            masked_loss, encoder, _dataset(held_out, vocabulary, config), held_out.rows, config
        )
    encoder.card = ModelCard(trained_on=(described("pretrain", train, held_out),))
    keep = partial(save_with_scores, encoder, run.path)
    for number in range(run.state["phase"], len(config.phases)):
        task, sampler, plan = _phase(config.phases[number], config, encoder, train, run.world)
        fit(task, dataset, sampler, plan, config, run, phase=number, validate=validate, keep=keep)
    run.finish(len(config.phases))


def _dataset(corpus: Corpus, vocabulary: Vocabulary, config: PretrainConfig) -> TokenDataset:
    assert corpus.tokens is not None
    return TokenDataset(
        corpus.stores, vocabulary, corpus.tokens, fraction=config.mask_fraction, seed=config.seed
    )


def _phase(
    phase: Phase, config: PretrainConfig, encoder: GeneEncoder, train: Corpus, world: Processes
) -> tuple[nn.Module, SpotSampler | GroupSampler, BatchPlan]:
    """Return what one phase learns, in which batches."""
    if phase.objective == "masked":
        plan = fitted(train, phase, world, stacklevel=5)
        return MaskedGenes(encoder), SpotSampler(train.rows, plan.batch_size, config.seed), plan
    plan = fitted(train, phase, world, multiple=GROUP, stacklevel=5)
    task = NeighborhoodGenes(
        encoder, context=config.context, targets=config.targets, group_size=GROUP
    )
    coordinates = [np.asarray(store.coordinates) for store in train.stores]
    return task, GroupSampler(coordinates, train.rows, plan.batch_size, config.seed, GROUP), plan
