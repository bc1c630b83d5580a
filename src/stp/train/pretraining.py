"""Stage one: from stores on disk to a gene encoder."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from stp.data.masked_tokens import TokenDataset
from stp.data.poor_spots import warn_about_poor_spots
from stp.data.samplers import GroupSampler, SpotSampler
from stp.data.store import SpotStore
from stp.data.store_genes import check_genes
from stp.genes.vocabulary import Vocabulary
from stp.models.device import build_with_seed
from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.saved.card import ModelCard
from stp.models.saved.pretrained import save_with_scores
from stp.train.config import Phase, PretrainConfig
from stp.train.corpus import (
    Corpus,
    describe_stage,
    require,
    require_neighbors,
)
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.loop import Training, run_training
from stp.train.engine.processes import distributed
from stp.train.engine.protocols import Sampler
from stp.train.engine.run_dir import RunDir, run_settings
from stp.train.store_lists import (
    TRAIN,
    VALIDATION,
    StoreLists,
    Stores,
    check_lists,
    store_fingerprint,
)
from stp.train.tasks import MaskedGenes, NeighborhoodGenes
from stp.train.validation import masked_loss

GROUP_SIZE = 9  # spots of a neighborhood, the center included


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
    """Train a gene encoder on masked genes, then with neighborhoods (paper, section 3.2).

    This is stage one; :func:`stp.train.align` is stage two.

    Parameters
    ----------
    stores
        Paths or URLs of training stores, written by `stp.io.write_store`, or a collection of
        :func:`stp.io.read_collection`.
    output_dir
        Run directory. It receives the model for `GeneEncoder.from_pretrained`, the settings
        (training.json), the metrics (metrics.jsonl) and the state to resume from.
    vocabulary
        Vocabulary with gene means, made by `Vocabulary.fit`.
    model
        Size of the gene encoder.
    config
        Settings of the training.
    validation
        Paths or URLs of stores, or a collection, that choose the best epoch: the one with the
        lowest masked gene loss in the last phase.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The gene encoder with the best weights by validation, on the CPU. Without validation it has the
    last weights.

    Raises
    ------
    ValueError
        If a path is no training store, if a store lacks the coordinates for neighborhood training,
        if `radius_um` reaches fewer than eight spots or coordinates are not in µm, if genes are of
        another species or less than half of the UMIs are in the vocabulary, if the vocabulary has
        no means, if two stores have the same content, if a store was written anew after its
        collection was made, or if `output_dir` has a run with other settings.
    BlockingIOError
        If another process trains in `output_dir`.
    FloatingPointError
        If the loss or its gradient is not finite. The error names the stores of the batch, and the
        weights stay as they were.
    SystemExit
        With status 0, after a checkpoint, if the process is sent SIGTERM or SIGUSR1.

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
    check_lists(stores, validation)
    lists = StoreLists.choose(stores, validation)
    training_stores, validation_stores = lists.open_stores(table_key)
    vocabulary.divisors()  # raises ValueError if the vocabulary has no means
    check_genes([*training_stores, *validation_stores], vocabulary)
    if any(phase.objective == "neighborhood" for phase in config.phases):
        require(training_stores, "coordinates", "neighborhood training")
        if config.radius_um is not None:
            require_neighbors(training_stores, config.min_genes, config.radius_um, GROUP_SIZE)
    inputs = {
        "stage": "pretrain",
        "vocabulary": vocabulary.digest,
        "model": asdict(model),
        **store_fingerprint(training_stores, validation_stores, table_key),
        **lists.record(),
    }

    def open_corpus(run: RunDir, name: str, stores: list[SpotStore]) -> Corpus:
        if run.processes.is_main:
            warn_about_poor_spots(stores, config.min_genes)
        return Corpus.open_tokenized(
            name,
            stores,
            config.min_genes,
            vocabulary=vocabulary,
            context_length=model.context_length,
            run=run,
            origin=lists.origin(name),
        )

    with distributed(config.device) as processes:
        settings = run_settings(config, inputs)
        with RunDir(output_dir, settings, resume=resume, processes=processes) as run:
            if run.checkpoint.phase < len(config.phases):
                validation_corpus = None
                if validation_stores:
                    validation_corpus = open_corpus(run, VALIDATION, validation_stores)
                training_corpus = open_corpus(run, TRAIN, training_stores)
                encoder = _build_encoder(model, vocabulary, training_corpus, config)
                _run_phases(run, training_corpus, validation_corpus, encoder, config)
    return GeneEncoder.from_pretrained(output_dir)


def _run_phases(
    run: RunDir,
    train: Corpus,
    validation: Corpus | None,
    encoder: GeneEncoder,
    config: PretrainConfig,
) -> None:
    """Run the phases that are left."""
    dataset = _make_dataset(train, encoder.vocabulary, config)
    encoder.card = ModelCard(trained_on=(describe_stage("pretrain", train, validation),))
    validate = None
    if validation:
        validation_dataset = _make_dataset(validation, encoder.vocabulary, config)
        validate = partial(masked_loss, encoder, validation_dataset, validation.rows, config)
    for number in range(run.checkpoint.phase, len(config.phases)):
        phase = config.phases[number]
        multiple = GROUP_SIZE if phase.objective == "neighborhood" else 1
        plan = BatchPlan.for_corpus(train.rows, phase, run.processes, multiple=multiple)
        run_training(
            Training(
                task=_make_task(phase, encoder, config),
                dataset=dataset,
                sampler=_make_sampler(phase, train, plan, config),
                plan=plan,
                config=config,
                run=run,
                save_model=partial(save_with_scores, encoder, run.path),
                validate=validate,
                phase=number,
            )
        )
    run.finish(len(config.phases))


def _build_encoder(
    model: GeneEncoderConfig, vocabulary: Vocabulary, train: Corpus, config: PretrainConfig
) -> GeneEncoder:
    """Build the encoder that training starts from."""
    encoder = build_with_seed(config.seed, lambda: GeneEncoder(model, vocabulary))
    if config.log_frequency_start:
        encoder.start_heads(_make_dataset(train, vocabulary, config).log_frequency())
    return encoder


def _make_dataset(corpus: Corpus, vocabulary: Vocabulary, config: PretrainConfig) -> TokenDataset:
    assert corpus.tokens is not None
    return TokenDataset(
        corpus.stores, vocabulary, corpus.tokens, fraction=config.mask_fraction, seed=config.seed
    )


def _make_task(phase: Phase, encoder: GeneEncoder, config: PretrainConfig) -> MaskedGenes:
    if phase.objective == "masked":
        return MaskedGenes(encoder)
    return NeighborhoodGenes(
        encoder, context=config.context, targets=config.targets, group_size=GROUP_SIZE
    )


def _make_sampler(phase: Phase, train: Corpus, plan: BatchPlan, config: PretrainConfig) -> Sampler:
    if phase.objective == "masked":
        return SpotSampler(train.rows, plan.batch_size, config.seed)
    coordinates = [np.asarray(store.coordinates) for store in train.stores]
    return GroupSampler(
        coordinates, train.rows, plan.batch_size, config.seed, GROUP_SIZE, config.radius_um
    )
