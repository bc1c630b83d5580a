"""Stage two, from stores on disk and a gene encoder to a Stamp."""

from functools import partial
from pathlib import Path
from typing import Any

from stp.data.pairs import PairDataset
from stp.data.samplers import SpotSampler
from stp.models.gene import GeneEncoder
from stp.models.image import ImageEncoderConfig
from stp.models.lora import add_adapters, merged
from stp.models.stamp import Stamp, StampConfig
from stp.train.config import AlignConfig
from stp.train.corpus import Corpus, Stores, digest, fitted, open_stores, require, seeded, settings
from stp.train.loop import fit
from stp.train.run import Run
from stp.train.tasks import Alignment
from stp.train.validation import recall
from stp.train.world import join


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
    stores, held_out = open_stores(stores, table_key), open_stores(validation, table_key)
    require([*stores, *held_out], "pyramid", "alignment")
    genes.vocabulary.divisors()
    model = StampConfig(genes.config, image_encoder, config.projection_width)
    with join(config.device) as world:
        asked = settings("align", stores, held_out, genes.vocabulary, config, model, world)
        with Run(output_dir, asked | {"gene_encoder": digest(genes)}, resume=resume, world=world) as run:
            if run.state["phase"] < 1:
                ranked = partial(Corpus.ranked, run, genes.vocabulary, genes.config.context_length, config.min_genes)
                _align(run, ranked("train", stores), ranked("validation", held_out), genes, model, config)
    return Stamp.from_pretrained(output_dir)


def _align(
    run: Run, train: Corpus, held_out: Corpus | None, genes: GeneEncoder, model: StampConfig, config: AlignConfig
) -> None:
    """Run the stage, unless it is done."""
    stamp = seeded(config.seed, lambda: Stamp(model, genes.vocabulary))
    stamp.gene_encoder.load_state_dict(genes.state_dict())
    freeze(stamp, config)
    image = {"image_size": model.image.image_size, "um_per_px": model.image.um_per_px, "seed": config.seed}

    def read(corpus: Corpus, **augmented: Any) -> PairDataset:
        frozen = config.trained != "all"
        of_spots = corpus.encoded(run, stamp.gene_encoder, config) if frozen else corpus.tokens
        return PairDataset(corpus.stores, of_spots, **image, **augmented)

    dataset = read(train, turn=config.turn, stain_jitter=config.stain_jitter)
    plan = fitted(train, config, run.world, multiple=config.spots_per_slide, stacklevel=4)
    sampler = SpotSampler(train.rows, plan.batch_size, config.seed, config.spots_per_slide)
    validate = partial(recall, stamp, read(held_out), held_out.rows, config) if held_out else None
    gather = run.world.gather if config.negatives == "global" else None
    task = Alignment(stamp, gather=gather, micro_batch=config.micro_batch)
    fit(task, dataset, sampler, plan, config, run, validate=validate, keep=partial(_keep, stamp, config, run.path))
    run.finish(1)


def freeze(stamp: Stamp, config: AlignConfig) -> None:
    """Leave trainable what the config says."""
    stamp.gene_encoder.requires_grad_(config.trained == "all")
    stamp.image_encoder.requires_grad_(config.trained != "projections")
    if config.trained == "lora":
        seeded(config.seed, lambda: add_adapters(stamp.image_encoder, config.lora_rank))


def _keep(stamp: Stamp, config: AlignConfig, path: Path) -> None:
    (merged(stamp) if config.trained == "lora" else stamp).save_pretrained(path)
