"""Linear probes of labels on frozen features, slides or patients left out in turn.

Each embedding has two rows: logistic regression, and the paper's probe.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import stp
from benchmarks.accuracy import tables
from benchmarks.accuracy.clusters import GENE_RATE, number_blocks, pca_of
from benchmarks.accuracy.leakage import find_leaks, seen_by_model
from benchmarks.accuracy.slides import FEATURES, Embedder, Section
from benchmarks.accuracy.splits import Score, labels_of, score_rows, split
from benchmarks.accuracy.tables import Outcome

IMAGE_RATE = 1e-4  # the paper's learning rate of a probe on images
RATES = {"STAMP_V": IMAGE_RATE, "raw backbone": IMAGE_RATE}
PROBED = {**FEATURES, "PCA": "X_pca"}
N_FOLDS = 5
N_TRAIN_GROUPS = 3  # the penalty of a probe is chosen with each of them left out
PAPER = ", the paper's probe"
PROBES = ("", PAPER)


def score_probe(
    sections: Sequence[Section], embed: Embedder, options: argparse.Namespace
) -> Outcome:
    """Read labels by one linear layer on frozen features.

    Slides or patients are left out in turn; a single slide has five folds.
    """
    scores: list[Score] = []
    notes: list[str] = []
    methods = [name + probe for name in PROBED for probe in PROBES]
    predicted: dict[str, list[pd.DataFrame]] = {method: [] for method in methods}
    for train, test in split(sections, options):
        notes += find_leaks(train, test)
        notes += seen_by_model(embed.path(test[0]), test, options.patient_key)
        joined = join_labeled(train, test, embed, options)
        for name, probe in itertools.product(PROBED, PROBES):
            if PROBED[name] not in joined.obsm:
                continue
            run_probe(joined, name, probe, options)
            is_tested = joined.obs["slide"].isin([section.name for section in test])
            scored = joined[is_tested & joined.obs["stp_probe"].notna()]
            columns = scored.obs[[options.label_key, "stp_probe"]].astype(str)
            predicted[name + probe].append(columns)
            if train:
                scores += score_slides(name + probe, scored, options.label_key, test)
            else:
                scores += score_folds(name + probe, joined.uns["stp_probe"]["scores"], test[0])
    options.folder.mkdir(parents=True, exist_ok=True)
    for method, parts in predicted.items():
        if parts:
            draw_confusion(pd.concat(parts), options.label_key, options.folder, method)
    table = pd.DataFrame(scores, columns=tables.COLUMNS)
    return Outcome(f"Linear probe of {options.label_key}", methods, table, notes)


def run_probe(joined: anndata.AnnData, name: str, probe: str, options: argparse.Namespace) -> None:
    """Predict the labels of the joined spots by one of the two probes on an embedding."""
    group_key = "fold" if "fold" in joined.obs else None
    if probe == PAPER:
        stp.tl.linear_probe_paper(
            joined,
            options.label_key,
            use_rep=PROBED[name],
            learning_rate=RATES.get(name, GENE_RATE),
            seed=options.seeds[0],
            n_folds=N_FOLDS,
            group_key=group_key,
        )
        return
    stp.tl.linear_probe(
        joined,
        options.label_key,
        use_rep=PROBED[name],
        seed=options.seeds[0],
        n_folds=N_FOLDS,
        group_key=group_key,
    )


def score_slides(
    name: str, scored: anndata.AnnData, label_key: str, test: Sequence[Section]
) -> list[Score]:
    """Score the probe on each test slide."""
    rows: list[Score] = []
    for section in test:
        spots = scored.obs[scored.obs["slide"] == section.name].astype(str)
        values = stp.metrics.classification_scores(
            spots[label_key].to_numpy(), spots["stp_probe"].to_numpy()
        )
        rows += score_rows(name, section, 0, values)
    return rows


def score_folds(name: str, folds: pd.DataFrame, section: Section) -> list[Score]:
    """Return the scores of each fold of a single slide."""
    rows: list[Score] = []
    for number, values in folds.drop(columns="n_spots").iterrows():
        slide = f"{section.name} fold {number}"
        for metric, value in values.items():
            rows.append((name, slide, section.patient, 0, str(metric), value))
    return rows


def join_labeled(
    train: Sequence[Section],
    test: Sequence[Section],
    embed: Embedder,
    options: argparse.Namespace,
) -> anndata.AnnData:
    """Return the labeled spots of both sides in one table, with the embeddings that all have."""
    test_names = {section.name for section in test}
    group = {s.name: s.patient if options.by == "patient" else s.name for s in train}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(group.values()))}
    parts = []
    for section in (*train, *test):
        rows = section.rows(options.label_key)
        part = embed(section, test[0])[rows].copy()
        part.obs["slide"] = section.name
        if section.name in test_names and train:
            part.obs["fold"] = "test"
        elif train:
            part.obs["fold"] = f"train {numbers[group[section.name]] % N_TRAIN_GROUPS}"
        elif options.folds == "blocks":
            part.obs["fold"] = number_blocks(section.centers[rows], N_FOLDS).astype(str)
        parts.append(part)
    components = pca_of(parts, parts[: len(train)] or parts)
    for part, values in zip(parts, components, strict=True):
        part.obsm["X_pca"] = values
    joined = anndata.concat(parts, join="inner", index_unique="-")
    labels_of(joined, options.label_key, "these slides")
    return joined


def draw_confusion(frame: pd.DataFrame, label_key: str, folder: Path, name: str) -> None:
    """Draw how often each class is taken for another."""
    from sklearn.metrics import confusion_matrix

    labels = frame[label_key].to_numpy()
    predicted = frame["stp_probe"].to_numpy()
    classes = np.unique([*labels, *predicted])
    table = anndata.AnnData(obs=pd.DataFrame(index=frame.index))
    table.uns["stp_probe"] = {
        "classes": classes,
        "confusion": confusion_matrix(labels, predicted, labels=classes),
        "scores": pd.DataFrame([stp.metrics.classification_scores(labels, predicted)]),
        "params": {"label_key": label_key},
    }
    tables.save(stp.pl.confusion(table, return_fig=True), folder / f"confusion {name}.png")
