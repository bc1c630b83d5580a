"""Evaluate a model on a split collection: every score next to baselines on the same data."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stp._log import logger
from stp._version import __version__
from stp.data.collection import Collection
from stp.io._embed_model import Model, open_model, reads_images
from stp.models.device import choose_device, choose_precision
from stp.workflows.evaluation_baselines import share_genes
from stp.workflows.evaluation_labels import read_labeled, score_clusters, score_probe
from stp.workflows.evaluation_leaks import Leaks, check_leaks, read_training
from stp.workflows.evaluation_options import EvaluationOptions, check_labels, choose_sides
from stp.workflows.evaluation_parts import Part
from stp.workflows.evaluation_scores import score_expression, score_retrieval
from stp.workflows.evaluation_tables import (
    COLOR,
    SpotTable,
    can_retrieve,
    embeddings_of,
    make_tables,
)
from stp.workflows.slide_scores import as_plain

NO_LABEL = (
    "Linear probe and clusters: pass --label with a column of obs that has tissue labels, such as "
    "a pathologist's regions."
)
NO_RETRIEVAL = "Retrieval: only a Stamp that was aligned with genes finds genes by images."
NO_EXPRESSION = "Expression: the model reads no images."


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a collection, and all that is needed to judge them.

    Parameters
    ----------
    model
        `name`, `class` and `digest` of the model.
    collection
        Digest of the collection.
    options
        Settings of the evaluation.
    tables
        The stores that were used.
    leaks
        What scored slides share with references or training, and what was not checked.
    left_out
        Stores that were left out, a sentence each.
    parts
        Scores.
    missing
        Parts that were not evaluated, and how to get them.
    """

    model: dict[str, str]
    collection: str
    options: EvaluationOptions
    tables: list[SpotTable]
    leaks: Leaks
    left_out: list[str]
    parts: list[Part]
    missing: list[str]

    def describe(self) -> dict[str, Any]:
        """Return all as JSON values; a number that is not defined is null."""
        stores = [
            {
                "name": table.name,
                "patient": table.patient,
                "side": table.side,
                "n_spots": table.n_spots,
                "n_spots_left_out": table.n_left_out,
            }
            for table in self.tables
        ]
        return as_plain(
            {
                "version": __version__,
                "model": self.model,
                "collection": self.collection,
                "settings": asdict(self.options),
                "stores": stores,
                "leaks": self.leaks.found,
                "not_checked": self.leaks.unchecked,
                "left_out": self.left_out,
                "not_evaluated": self.missing,
                "scores": {part.name: part.describe() for part in self.parts},
            }
        )


def evaluate(
    collection: Collection, model: str | Path | Model, options: EvaluationOptions
) -> Evaluation:
    """Score a model on one side of a collection, with references and baselines of another side.

    Everything is checked before the first store is embedded. Stores are read one by one, and not
    changed. Embeddings that a store has of this model are used.

    Parameters
    ----------
    collection
        A collection with a split.
    model
        A Stamp, GeneEncoder or ImageEncoder, its folder, or the name of a pathology encoder.
    options
        Settings of the evaluation.

    Raises
    ------
    KeyError
        No store of a side has the column of labels.
    ValueError
        The collection has no split, scored slides are not new, or a value is wrong.
    """
    opened = open_model(model)
    if not reads_images(opened) and options.label is None:
        raise ValueError(
            f"{opened.name} reads no images, so it is evaluated by labels alone; pass --label with "
            "a column of obs that has tissue labels"
        )
    choose_precision(choose_device(options.device), options.precision)
    sides = choose_sides(collection, options, needs_image=reads_images(opened))
    check_labels(sides, options)
    training = read_training(Path(model) if isinstance(model, str | Path) else None, opened)
    leaks = check_leaks(sides, training, options)
    for line in leaks.found:
        logger.warning(f"Leak: {line}")
    with tempfile.TemporaryDirectory() as folder:
        tables, skipped = make_tables(sides, opened, options, Path(folder))
        parts = list(_score(tables, opened, options))
    return Evaluation(
        {"name": opened.name, "class": type(opened).__name__, "digest": opened.digest},
        collection.digest,
        options,
        tables,
        leaks,
        [*sides.left_out, *skipped, *_list_left_out(tables, options)],
        parts,
        list(_list_missing(opened, options)),
    )


def _score(tables: list[SpotTable], model: Model, options: EvaluationOptions) -> Iterator[Part]:
    """Yield the scores that model and labels allow."""
    genes = share_genes(tables)
    if can_retrieve(model):
        yield score_retrieval(tables)
    if reads_images(model):
        yield score_expression(tables, genes, can_retrieve=can_retrieve(model))
    if options.label is None:
        return
    reps = embeddings_of(model) + ([COLOR] if reads_images(model) else [])
    spots = read_labeled(tables, reps, genes)
    yield score_probe(spots, tables, options.label, options.seed)
    yield score_clusters(spots, tables, options.label, options.seed)


def _list_missing(model: Model, options: EvaluationOptions) -> Iterator[str]:
    """Yield what was not evaluated, and how to get it."""
    if not can_retrieve(model):
        yield NO_RETRIEVAL
    if not reads_images(model):
        yield NO_EXPRESSION
    if options.label is None:
        yield NO_LABEL


def _list_left_out(tables: list[SpotTable], options: EvaluationOptions) -> Iterator[str]:
    """Yield how many spots the limit leaves out."""
    limited = [table for table in tables if table.n_left_out]
    if limited:
        n_spots = sum(table.n_left_out for table in limited)
        yield (
            f"{n_spots:,} spots of {len(limited)} slides: max_spots is {options.max_spots:,}, and "
            f"the others were chosen at random with seed {options.seed}."
        )
