"""Stage two, from stores on disk, and a gene encoder or gene sets, to a Stamp."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stp.data.gene_sets import read_gene_sets
from stp.data.pairs import CELLS, PairDataset
from stp.data.samplers import SpotSampler
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.genes.vocabulary import Vocabulary
from stp.models.device import build_with_seed
from stp.models.gene import GeneEncoder
from stp.models.image import ImageEncoderConfig
from stp.models.lora import add_adapters, merge_adapters
from stp.models.saved.card import ModelCard
from stp.models.saved.pretrained import save_with_scores
from stp.models.stamp import Stamp, StampConfig
from stp.train.config import AlignConfig
from stp.train.corpus import (
    Corpus,
    Stores,
    alignment_targets,
    described,
    open_stores,
    require,
    require_full_batches,
    require_image,
    store_fingerprint,
)
from stp.train.engine.batch_plan import fitted
from stp.train.engine.loop import fit
from stp.train.engine.processes import distributed
from stp.train.engine.run_dir import RunDir, settings
from stp.train.tasks import Alignment
from stp.train.validation import recall


def align(
    stores: Stores,
    output_dir: str | Path,
    *,
    gene_encoder: GeneEncoder | str | Path | None = None,
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(),
    config: AlignConfig = AlignConfig(),
    validation: Stores = (),
    vocabulary: Vocabulary | None = None,
    table_key: str = "table",
    resume: bool = True,
) -> Stamp:
    """Stage two: align an image encoder with genes, or gene sets, on patches and regions (paper, section 3.3).

    Parameters
    ----------
    stores
        Paths of stores with an image, written by `stp.io.write_store`.
    output_dir
        Run directory: weights, config and vocabulary as `Stamp.from_pretrained` reads them, training.json,
        metrics.jsonl, and the state to resume from.
    gene_encoder
        The encoder to start from, or the folder of one; it is trained further. None for targets "pathways".
    image_encoder, config
        Backbone and input; schedule and seed.
    validation
        Stores to choose the best epoch by: the highest recall@5 from image to genes, or to pathways where there are
        no genes.
    vocabulary
        The genes of pathways where there is no gene encoder; human ones by default.
    table_key
        Table of every store.
    resume
        Go on where a stopped run left off; the result is that of a run never stopped.

    Returns
    -------
    The best weights by validation, or the last without it, on the CPU.

    Raises
    ------
    FileNotFoundError
        There are no gene sets, or no gene encoder, where the config or the argument says.
    ValueError
        A path is no training store, a store lacks an image or has too coarse a one, the vocabulary has no means, gene
        encoder, gene sets and targets do not fit together, or `output_dir` holds a run with other settings.
    OSError
        The decoded images do not fit the disk of `output_dir`.

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
    genes, vocabulary = _genes(gene_encoder, vocabulary, config)
    training, held_out = open_stores(stores, validation, table_key)
    require([*training, *held_out], "pyramid", "alignment")
    require_image([*training, *held_out], image_encoder.um_per_px)
    require_full_batches(training, config)
    sets = read_gene_sets(config.gene_sets, vocabulary, training) if config.gene_sets else {}
    sizes = {name: len(of_set) for name, of_set in sets.items()} or None
    model = StampConfig(
        genes.config if genes else None, image_encoder, config.projection_width, sizes
    )
    with distributed(config.device) as world:
        made_of: dict[str, Any] = {
            "stage": "align",
            "vocabulary": vocabulary.digest,
            "model": asdict(model),
        }
        made_of["gene_encoder"] = genes and genes.digest
        made_of["gene_sets"] = hashlib.sha256(
            b"".join(of_set.tobytes() for of_set in sets.values())
        ).hexdigest()
        asked = settings(
            config, world, **made_of, **store_fingerprint(training, held_out, table_key)
        )
        with RunDir(output_dir, asked, resume=resume, world=world) as run:
            if run.state["phase"] < 1:
                stamp = _stamp(model, vocabulary, genes, config)
                corpus = partial(_corpus, run, stamp, config)
                checked = corpus("validation", held_out) if held_out else None
                _align(run, corpus("train", training), checked, stamp, sets, config)
    return Stamp.from_pretrained(output_dir)


def _genes(
    gene_encoder: GeneEncoder | str | Path | None,
    vocabulary: Vocabulary | None,
    config: AlignConfig,
) -> tuple[GeneEncoder | None, Vocabulary]:
    """Return the gene encoder, if the targets need one, and the vocabulary."""
    if config.targets == "pathways":
        if gene_encoder is not None:
            raise ValueError("targets 'pathways' take no gene_encoder; targets 'both' do")
        return None, vocabulary or Vocabulary.default()
    if gene_encoder is None or vocabulary is not None:
        raise ValueError(
            f"targets {config.targets!r} need gene_encoder, which brings its own vocabulary; pass it alone"
        )
    genes = (
        gene_encoder
        if isinstance(gene_encoder, GeneEncoder)
        else GeneEncoder.from_pretrained(gene_encoder)
    )
    genes.vocabulary.divisors()
    return genes, genes.vocabulary


def _stamp(
    model: StampConfig, vocabulary: Vocabulary, genes: GeneEncoder | None, config: AlignConfig
) -> Stamp:
    """Build what training starts from, with what is trained of it."""
    stamp = build_with_seed(config.seed, lambda: Stamp(model, vocabulary))
    stamp.card = ModelCard(trained_on=genes.card.trained_on if genes else ())
    if genes and stamp.gene_encoder:
        stamp.gene_encoder.load_state_dict(genes.state_dict())
    grid = stamp.image_encoder.backbone.patch_embed.grid_size
    if "localization" in config.losses and min(grid) < CELLS:
        raise ValueError(
            f"localization needs {CELLS} x {CELLS} tokens of an image, and this backbone makes {grid[0]} x {grid[1]}; "
            "choose a larger image_size or a smaller patch_size, or losses without localization"
        )
    freeze(stamp, config)
    return stamp


def _corpus(
    run: RunDir, stamp: Stamp, config: AlignConfig, name: str, stores: list[SpotStore]
) -> Corpus:
    if stamp.gene_encoder is None:
        return Corpus.open(config.min_genes, name, stores)
    length = stamp.gene_encoder.config.context_length
    return Corpus.open_tokenized(run, stamp.vocabulary, length, config.min_genes, name, stores)


def _align(
    run: RunDir,
    train: Corpus,
    held_out: Corpus | None,
    stamp: Stamp,
    sets: Mapping[str, np.ndarray],
    config: AlignConfig,
) -> None:
    """Run the stage."""
    for corpus in filter(None, (train, held_out)):
        corpus.map_images(run)
    trained_on = (*stamp.card.trained_on, described("align", train, held_out))
    stamp.card = replace(stamp.card, trained_on=trained_on)
    targets = alignment_targets(run, train, stamp, sets, config)
    if "pathways" in targets and stamp.pathway_encoder is not None:
        scores = (targets["pathways"][store][rows] for store, rows in enumerate(train.rows))
        stamp.pathway_encoder.fit(sets.values(), scores)
    dataset = _pairs(
        train, targets, stamp, config, rotate=config.rotate, stain_jitter=config.stain_jitter
    )
    validate = None
    if held_out:
        read = _pairs(
            held_out, alignment_targets(run, held_out, stamp, sets, config), stamp, config
        )
        validate = partial(recall, stamp, read, held_out.rows, config)
    plan = fitted(train, config, run.world, multiple=config.spots_per_slide, stacklevel=4)
    sampler = SpotSampler(train.rows, plan.batch_size, config.seed, config.spots_per_slide)
    gather = run.world.gather if config.negatives == "global" else None
    task = Alignment(stamp, losses=config.losses, gather=gather, micro_batch=config.micro_batch)
    fit(
        task,
        dataset,
        sampler,
        plan,
        config,
        run,
        validate=validate,
        keep=partial(_keep, stamp, config, run.path),
    )
    run.finish(1)


def _pairs(
    corpus: Corpus,
    targets: dict[str, SpotFile],
    stamp: Stamp,
    config: AlignConfig,
    **augmented: Any,
) -> PairDataset:
    image = stamp.config.image
    window: dict[str, Any] = {"image_size": image.image_size, "um_per_px": image.um_per_px}
    return PairDataset(corpus.stores, targets, **window, seed=config.seed, **augmented)


def freeze(stamp: Stamp, config: AlignConfig) -> None:
    """Leave trainable what the config says."""
    if stamp.gene_encoder is not None:
        stamp.gene_encoder.requires_grad_(config.trained == "all")
    stamp.image_encoder.requires_grad_(config.trained != "projections")
    if config.trained == "lora":
        build_with_seed(config.seed, lambda: add_adapters(stamp.image_encoder, config.lora_rank))


def _keep(stamp: Stamp, config: AlignConfig, path: Path, scores: dict[str, float]) -> None:
    save_with_scores(merge_adapters(stamp) if config.trained == "lora" else stamp, path, scores)
