"""Stage two: from stores on disk, and a gene encoder or gene sets, to a Stamp."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from stp.data.gene_sets import read_gene_sets
from stp.data.pairs import PairDataset
from stp.data.poor_spots import warn_about_poor_spots
from stp.data.samplers import SpotSampler
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.data.store_genes import check_genes
from stp.genes.vocabulary import Vocabulary
from stp.models.gene import GeneEncoder
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.lora import merge_adapters
from stp.models.saved.pretrained import save_with_scores
from stp.models.stamp import Stamp, StampConfig
from stp.train.config import AlignConfig
from stp.train.corpus import (
    Corpus,
    alignment_targets,
    describe_stage,
    require,
    require_full_batches,
    require_image,
)
from stp.train.engine.batch_plan import BatchPlan
from stp.train.engine.loop import Training, run_training
from stp.train.engine.processes import distributed
from stp.train.engine.run_dir import RunDir, run_settings
from stp.train.starting_point import build_stamp, choose_genes, choose_images
from stp.train.store_lists import (
    TRAIN,
    VALIDATION,
    StoreLists,
    Stores,
    check_lists,
    store_fingerprint,
)
from stp.train.tasks import Alignment
from stp.train.validation import recall, warn_if_epoch_is_chance

GeneSets = Mapping[str, np.ndarray]  # vocabulary indices of the genes of each set


def align(
    stores: Stores,
    output_dir: str | Path,
    *,
    gene_encoder: GeneEncoder | str | Path | None = None,
    image_encoder: ImageEncoderConfig | ImageEncoder = ImageEncoderConfig(),
    config: AlignConfig = AlignConfig(),
    validation: Stores = (),
    vocabulary: Vocabulary | None = None,
    table_key: str = "table",
    resume: bool = True,
) -> Stamp:
    """Align an image encoder with genes or gene sets, on patches and regions (paper, section 3.3).

    This is stage two; :func:`stp.train.pretrain` is stage one.

    Parameters
    ----------
    stores
        Paths or URLs of training stores with an image, written by `stp.io.write_store`, or a
        collection of :func:`stp.io.read_collection`.
    output_dir
        Run directory. It receives the model for `Stamp.from_pretrained`, the settings
        (training.json), the metrics (metrics.jsonl) and the state to resume from.
    gene_encoder
        Gene encoder to start from, or its folder. A copy of it is trained further, depending on
        `config.trained`. Targets "pathways" take none.
    image_encoder
        Image encoder to start from, e.g. of :func:`stp.models.load_backbone`; a copy of it is
        trained further. Or the config of a new one. A prompt token is added if it has none.
    config
        Settings of the training.
    validation
        Paths or URLs of stores, or a collection, that choose the best epoch: the one with the
        highest recall@5 from image to genes, or to pathways if there are no genes.
    vocabulary
        Vocabulary of the genes in the pathways, if there is no gene encoder; by default the human
        one.
    table_key
        Name of the table in a SpatialData.
    resume
        Continue a run that was stopped; the result is that of a run without a stop.

    Returns
    -------
    The Stamp with the best weights by validation, on the CPU. Without validation it has the last
    weights.

    Raises
    ------
    FileNotFoundError
        If there is no file at `config.gene_sets`, or no gene encoder at `gene_encoder`.
    TypeError
        If `image_encoder` is something else, e.g. a WrappedEncoder, which takes no prompt token.
    ValueError
        If a path is no training store, if a store has no image or one that is too coarse, if the
        vocabulary has no means, if gene encoder, gene sets and targets do not fit together, if a
        store was written anew after its collection was made, or if `output_dir` has a run with
        other settings.
    OSError
        If the disk of `output_dir` has no room for the decoded images.

    Examples
    --------
    >>> size = stp.models.GeneEncoderConfig(
    ...     context_length=32, width=16, depth=1, n_heads=2, ffn_width=32
    ... )
    >>> genes = stp.models.GeneEncoder(size, vocabulary)
    >>> backbone = {"patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 2}
    >>> image = stp.models.ImageEncoderConfig(
    ...     "vit_tiny_patch16_224", backbone, image_size=32, um_per_px=1.75
    ... )
    >>> config = stp.train.AlignConfig(epochs=1, batch_size=32, accumulate=1, projection_width=16)
    >>> stores = ["demo/stores/train_0.zarr"]
    >>> stamp = stp.train.align(
    ...     stores, "runs/stamp", gene_encoder=genes, image_encoder=image, config=config
    ... )
    >>> stamp.config.projection_width
    16
    """
    genes, vocabulary = choose_genes(gene_encoder, vocabulary, config)
    image_config, images = choose_images(image_encoder)
    check_lists(stores, validation)
    lists = StoreLists.choose(stores, validation, needs_image=True)
    training_stores, validation_stores = lists.open_stores(table_key)
    all_stores = [*training_stores, *validation_stores]
    check_genes(all_stores, vocabulary)
    require(all_stores, "pyramid", "alignment")
    require_image(all_stores, image_config.um_per_px)
    require_full_batches(training_stores, config)
    gene_sets: GeneSets = {}
    if config.gene_sets:
        gene_sets = read_gene_sets(config.gene_sets, vocabulary, training_stores)
    model = StampConfig(
        gene=genes.config if genes else None,
        image=image_config,
        projection_width=config.projection_width,
        pathways={name: len(indices) for name, indices in gene_sets.items()} or None,
    )
    set_bytes = b"".join(indices.tobytes() for indices in gene_sets.values())
    inputs = {
        "stage": "align",
        "vocabulary": vocabulary.digest,
        "model": asdict(model),
        "gene_encoder": genes.digest if genes else None,
        "image_encoder": images.digest if images else None,
        "gene_sets": hashlib.sha256(set_bytes).hexdigest(),
        **store_fingerprint(training_stores, validation_stores, table_key),
        **lists.record(),
    }

    def open_corpus(run: RunDir, name: str, stores: list[SpotStore], stamp: Stamp) -> Corpus:
        """Open stores, and rank their genes if the Stamp reads them."""
        origin = lists.origin(name)
        if run.processes.is_main:
            warn_about_poor_spots(stores, config.min_genes)
        if stamp.gene_encoder is None:
            return Corpus.open(name, stores, config.min_genes, origin=origin)
        return Corpus.open_tokenized(
            name,
            stores,
            config.min_genes,
            vocabulary=stamp.vocabulary,
            context_length=stamp.gene_encoder.config.context_length,
            run=run,
            origin=origin,
        )

    with distributed(config.device) as processes:
        settings = run_settings(config, inputs)
        with RunDir(output_dir, settings, resume=resume, processes=processes) as run:
            if run.checkpoint.phase < 1:
                stamp = build_stamp(model, vocabulary, genes, images, config)
                validation_corpus = None
                if validation_stores:
                    validation_corpus = open_corpus(run, VALIDATION, validation_stores, stamp)
                training_corpus = open_corpus(run, TRAIN, training_stores, stamp)
                _train_stamp(
                    run,
                    stamp,
                    training_corpus,
                    validation_corpus,
                    gene_sets=gene_sets,
                    config=config,
                )
    return Stamp.from_pretrained(output_dir)


def _train_stamp(
    run: RunDir,
    stamp: Stamp,
    train: Corpus,
    validation: Corpus | None,
    *,
    gene_sets: GeneSets,
    config: AlignConfig,
) -> None:
    """Train a Stamp on a corpus, and save it in the run directory."""
    train.map_images(run)
    if validation:
        validation.map_images(run)
    line = describe_stage("align", train, validation)
    stamp.card = replace(stamp.card, trained_on=(*stamp.card.trained_on, line))
    targets = alignment_targets(run, train, stamp, gene_sets, config)
    if stamp.pathway_encoder is not None:
        # Scores are standardized on the spots that are trained on.
        scores = (targets["pathways"][store][rows] for store, rows in enumerate(train.rows))
        stamp.pathway_encoder.fit(gene_sets.values(), scores)
    validate = None
    if validation:
        validation_targets = alignment_targets(run, validation, stamp, gene_sets, config)
        pairs = _make_dataset(validation, validation_targets, stamp, config, is_augmented=False)
        validate = partial(recall, stamp, pairs, validation.rows, config)
    together = config.spots_per_slide
    plan = BatchPlan.for_corpus(train.rows, config, run.processes, multiple=together)
    task = Alignment(
        stamp,
        losses=config.losses,
        gather=run.processes.gather if config.negatives == "global" else None,
        micro_batch=config.micro_batch,
    )
    run_training(
        Training(
            task=task,
            dataset=_make_dataset(train, targets, stamp, config, is_augmented=True),
            sampler=SpotSampler(train.rows, plan.batch_size, config.seed, together),
            plan=plan,
            config=config,
            run=run,
            save_model=partial(_save, stamp, config, run.path),
            validate=validate,
        )
    )
    run.finish(1)
    if validation and run.processes.is_main:
        lines = [line for line in run.metrics() if line["split"] == "validation"]
        recalls = [line["recall@5"] for line in lines]
        warn_if_epoch_is_chance(recalls, sum(map(len, validation.rows)))


def _make_dataset(
    corpus: Corpus,
    targets: Mapping[str, SpotFile],
    stamp: Stamp,
    config: AlignConfig,
    *,
    is_augmented: bool,
) -> PairDataset:
    """Read pairs of a corpus; only training augments images."""
    image = stamp.config.image
    return PairDataset(
        corpus.stores,
        targets,
        image_size=image.image_size,
        um_per_px=image.um_per_px,
        seed=config.seed,
        rotate=config.rotate and is_augmented,
        stain_jitter=config.stain_jitter if is_augmented else 0.0,
    )


def _save(stamp: Stamp, config: AlignConfig, path: Path, scores: dict[str, float]) -> None:
    save_with_scores(merge_adapters(stamp) if config.trained == "lora" else stamp, path, scores)
