"""How good is a model under the paper's protocols (tables 1 and 2), on any set of stores?

    P="python -m benchmarks.accuracy.protocols"
    $P clustering --stores slides/*.zarr --model runs/stamp --label-key layer --folder runs/clusters
    $P probe --stores slides/*.zarr --model runs/stamp --label-key layer --folder runs/probe
    $P expression --stores slides/*.zarr --model runs/stamp --folder runs/expression

Each slide (`--by slide`, as in the paper) or patient (`--by patient`) is tested in turn, and all
others are for training. A single slide has five folds of spots (`--folds random`, as in the paper,
or `blocks` of neighboring spots). A pattern such as `--model 'runs/without_{patient}'` names models
that never saw what is tested.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

import stp
from benchmarks.accuracy import tables
from benchmarks.accuracy.clusters import pca
from benchmarks.accuracy.expression import Targets, normalize
from benchmarks.accuracy.leakage import find_leaks, seen_by_model
from benchmarks.accuracy.predictions import MEAN, METHODS, predict_all
from benchmarks.accuracy.probe import score_probe
from benchmarks.accuracy.slides import FEATURES, Embedder, Section, read_sections
from benchmarks.accuracy.splits import Score, labels_of, score_rows, split, tested_sections
from benchmarks.accuracy.tables import Outcome
from benchmarks.measure import make_parser, write_results
from stp.tl._leiden import leiden_clusters

PCA = "PCA"
PCA_OTHERS = "PCA fitted on other slides"


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run one task; write its tables, and return its scores."""
    options = parse(arguments)
    sections = read_sections(options.stores, options.patient_key)
    embed = Embedder(options.model, options.backbone)
    outcome = TASKS[options.task](sections, embed, options)
    notes = list(dict.fromkeys([*embed.notes, *outcome.notes]))
    outcome = outcome._replace(notes=notes)
    baseline = PCA if PCA in outcome.methods else MEAN
    tables.write_tables(options.folder, outcome, baseline)
    settings = {name: str(value) for name, value in vars(options).items()}
    (options.folder / "settings.json").write_text(json.dumps(settings, indent=2))
    rows = tables.result_rows(options.task, outcome.scores, outcome.methods)
    write_results(options.out, rows)
    print((options.folder / "table.md").read_text())
    return outcome.scores


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command."""
    parser = make_parser(__doc__)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument(
        "--stores",
        type=Path,
        nargs="+",
        required=True,
        help="SpatialData zarr folders, one per slide",
    )
    parser.add_argument(
        "--model", required=True, help="folder of a model; {slide} and {patient} are what is tested"
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument("--label-key", help="column of obs with classes, for clustering and probe")
    parser.add_argument("--patient-key", default="patient", help="column of obs (patient)")
    parser.add_argument(
        "--by",
        choices=["slide", "patient"],
        default="slide",
        help="what is left out in turn (slide)",
    )
    parser.add_argument("--test", nargs="+", help="slides to test; by default all in turn")
    parser.add_argument(
        "--folds", choices=["random", "blocks"], default="random", help="within a single slide"
    )
    parser.add_argument(
        "--backbone", help="image encoder to compare with: a name or folder; by default untrained"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=range(5), help="of Leiden; the first of the probe"
    )
    parser.add_argument(
        "--genes", type=int, default=5000, help="highly variable genes to predict (5000)"
    )
    parser.add_argument(
        "--hvg",
        choices=["train", "paper"],
        default="train",
        help="choose genes on training slides only",
    )
    options = parser.parse_args(arguments)
    if options.task != "expression" and not options.label_key:
        parser.error(f"{options.task} needs --label-key")
    return options


def score_clusters(
    sections: Sequence[Section], embed: Embedder, options: argparse.Namespace
) -> Outcome:
    """Cluster each slide by Leiden at resolution 0.5, and compare with labels."""
    scores: list[Score] = []
    notes: list[str] = []
    for section in tested_sections(sections, options):
        embedded = embed(section, section)
        rows = section.rows(options.label_key)
        spots = section.table[rows]
        labels = labels_of(spots, options.label_key, section.name)
        embeddings = {}
        for name, key in FEATURES.items():
            if key in embedded.obsm:
                embeddings[name] = embedded.obsm[key][rows]
        embeddings[PCA] = pca(spots, [spots])
        others = [other.table for other in sections if other.patient != section.patient]
        if others:
            embeddings[PCA_OTHERS] = pca(spots, others)
        notes += seen_by_model(embed.path(section), [section], options.patient_key)
        for name, embedding in embeddings.items():
            for seed, clusters in leiden_clusters(embedding, options.seeds):
                values = stp.metrics.clustering_scores(labels, clusters)
                values |= stp.metrics.separation_scores(embedding, clusters)
                scores += score_rows(name, section, seed, values)
    methods = [*FEATURES, PCA, PCA_OTHERS]
    table = pd.DataFrame(scores, columns=tables.COLUMNS)
    return Outcome(f"Leiden clusters and {options.label_key}", methods, table, notes)


def score_expression(
    sections: Sequence[Section], embed: Embedder, options: argparse.Namespace
) -> Outcome:
    """Predict the highly variable genes of each slide that has an image."""
    scores: list[Score] = []
    notes = [f"{s.name} has no image and is left out" for s in sections if s.slide is None]
    sections = [section for section in sections if section.slide is not None]
    if len(sections) < 2:
        raise ValueError(
            f"expression is predicted from other slides; of these {len(sections)} has an image"
        )
    shared = sorted(set.intersection(*(set(section.table.var_names) for section in sections)))
    for train, test in split(sections, options):
        notes += find_leaks(train, test)
        notes += seen_by_model(embed.path(test[0]), test, options.patient_key)
        choosing = sections if options.hvg == "paper" else train
        targets = Targets.choose([section.table for section in choosing], shared, options.genes)
        for section in test:
            measured = normalize(section.table, targets.genes)
            test_targets = Targets.scored_in(targets.genes, measured)
            for name, predicted in predict_all(train, section, embed, targets.genes):
                values = targets.score(measured, predicted)
                test_values = test_targets.score(measured, predicted)
                for metric in ("PCC-V", "PCC-E"):
                    values[f"{metric}, chosen on test"] = test_values[metric]
                scores += score_rows(name, section, 0, values)
    table = pd.DataFrame(scores, columns=tables.COLUMNS)
    return Outcome("Expression predicted from images", METHODS, table, notes)


Task = Callable[[Sequence[Section], Embedder, argparse.Namespace], Outcome]
TASKS: dict[str, Task] = {
    "clustering": score_clusters,
    "probe": score_probe,
    "expression": score_expression,
}

if __name__ == "__main__":
    main()
