"""The paper's protocols over any set of stores: clustering, linear probe, expression prediction (tables 1 and 2).

    python -m benchmarks.paper clustering --stores slides/*.zarr --model runs/stamp --label-key layer --out results/c
    python -m benchmarks.paper probe      --stores slides/*.zarr --model runs/stamp --label-key layer --out results/p
    python -m benchmarks.paper expression --stores slides/*.zarr --model runs/stamp --out results/e

Each slide (`--by slide`, the paper's way) or patient (`--by patient`) is tested in turn, trained on all others; within
a single slide five folds of spots (`--folds random`, the paper's way, or `blocks` of neighboring spots). A model that
never saw what is tested is named by a pattern: `--model 'runs/without_{patient}'`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import stp
from benchmarks import tables
from benchmarks.clusters import blocks, clusters_of, pca, pca_of
from benchmarks.expression import Targets, normalized
from benchmarks.leakage import leaks, seen_by_model
from benchmarks.predictions import MEAN, METHODS, predictions
from benchmarks.slides import FEATURES, Embedder, Section, read

GENE_RATE, IMAGE_RATE = 1e-3, 1e-4  # the paper's learning rates of a probe
RATES = {"STAMP_V": IMAGE_RATE, "raw backbone": IMAGE_RATE}
PCA, PCA_OTHERS = "PCA", "PCA fitted on other slides"
N_FOLDS = 5


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run one task; returns and writes its scores."""
    options = _options(arguments)
    sections = read(options.stores, options.patient_key)
    embed = Embedder(options.model, options.backbone)
    title, methods, rows, notes = TASKS[options.task](sections, embed, options)
    scores = pd.DataFrame(rows, columns=["method", "slide", "patient", "seed", "metric", "value"])
    notes = list(dict.fromkeys([*embed.notes, *notes]))
    tables.write(options.out, title, scores, methods, PCA if PCA in methods else MEAN, notes)
    settings = {name: str(value) for name, value in vars(options).items()}
    (options.out / "settings.json").write_text(json.dumps(settings, indent=2))
    print((options.out / "table.md").read_text())
    return scores


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
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
        "--backbone", help="image encoder to stand beside: a name or folder; by default untrained"
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


def clustering(sections: Sequence[Section], embed: Embedder, options: argparse.Namespace):
    """Leiden at resolution 0.5 on each slide; its agreement with labels."""
    rows, notes = [], []
    for section in _tested(sections, options):
        found = embed(section, section)
        kept = section.rows(options.label_key)
        labels = _labels(section.table[kept], options.label_key, section.name)
        embeddings = {
            name: found.obsm[key][kept] for name, key in FEATURES.items() if key in found.obsm
        }
        embeddings[PCA] = pca(section.table[kept], [section.table[kept]])
        if others := [one.table for one in sections if one.patient != section.patient]:
            embeddings[PCA_OTHERS] = pca(section.table[kept], others)
        notes += seen_by_model(embed.path(section), [section], options.patient_key)
        for name, embedding in embeddings.items():
            for seed, clusters in clusters_of(embedding, options.seeds):
                scores = stp.metrics.clustering_scores(labels, clusters)
                scores |= stp.metrics.separation_scores(embedding, clusters)
                rows += [
                    (name, section.name, section.patient, seed, *pair) for pair in scores.items()
                ]
    methods = [*FEATURES, PCA, PCA_OTHERS]
    return f"Leiden clusters beside {options.label_key}", methods, rows, notes


def probe(sections: Sequence[Section], embed: Embedder, options: argparse.Namespace):
    """One linear layer on frozen features; slides or patients left out, or five folds within a single slide."""
    rows, notes, seen = [], [], {name: [] for name in (*FEATURES, PCA)}
    for train, test in _folds(sections, options):
        notes += leaks(train, test) + seen_by_model(embed.path(test[0]), test, options.patient_key)
        joined = _joined(train, test, embed, options)
        how = {
            "seed": options.seeds[0],
            "n_folds": N_FOLDS,
            "group_key": "fold" if "fold" in joined.obs else None,
        }
        for name, key in {**FEATURES, PCA: "X_pca"}.items():
            if key not in joined.obsm:
                continue
            rate = RATES.get(name, GENE_RATE)
            stp.tl.linear_probe(joined, options.label_key, use_rep=key, learning_rate=rate, **how)
            own = (
                joined.obs["slide"].isin([one.name for one in test])
                & joined.obs["stp_probe"].notna()
            )
            seen[name].append(joined.obs.loc[own, [options.label_key, "stp_probe"]].astype(str))
            if train:
                rows += _probe_rows(name, joined[own], options.label_key, test)
            else:
                folds = joined.uns["stp_probe"]["scores"].drop(columns="n_spots").iterrows()
                who = test[0].name, test[0].patient
                rows += [
                    (name, f"{who[0]} fold {n}", who[1], 0, *pair)
                    for n, row in folds
                    for pair in row.items()
                ]
    _draw_confusion({name: pd.concat(parts) for name, parts in seen.items() if parts}, options)
    return f"Linear probe of {options.label_key}", [*FEATURES, PCA], rows, notes


def _joined(train, test, embed: Embedder, options: argparse.Namespace) -> anndata.AnnData:
    """Put the labelled spots of both sides in one table, with the embeddings that all of them have."""
    parts = []
    for section in (*train, *test):
        found = embed(section, test[0])
        part = found[section.rows(options.label_key)].copy()
        part.obs["slide"] = section.name
        if train:
            part.obs["fold"] = "test" if section.name in {one.name for one in test} else "train"
        elif options.folds == "blocks":
            part.obs["fold"] = blocks(
                section.centers[section.rows(options.label_key)], N_FOLDS
            ).astype(str)
        parts.append(part)
    for part, components in zip(parts, pca_of(parts, parts[: len(train)] or parts), strict=True):
        part.obsm["X_pca"] = components
    joined = anndata.concat(parts, join="inner", index_unique="-")
    _labels(joined, options.label_key, "these slides")
    return joined


def _probe_rows(
    name: str, scored: anndata.AnnData, label_key: str, test: Sequence[Section]
) -> list[tuple]:
    """Score each test slide."""
    rows = []
    for section in test:
        own = scored[scored.obs["slide"] == section.name]
        pair = (
            own.obs[label_key].astype(str).to_numpy(),
            own.obs["stp_probe"].astype(str).to_numpy(),
        )
        scores = stp.metrics.classification_scores(*pair)
        rows += [(name, section.name, section.patient, 0, *score) for score in scores.items()]
    return rows


def _draw_confusion(seen: dict[str, pd.DataFrame], options: argparse.Namespace) -> None:
    from sklearn.metrics import confusion_matrix

    options.out.mkdir(parents=True, exist_ok=True)
    for name, frame in seen.items():
        labels, found = (frame[column].to_numpy() for column in (options.label_key, "stp_probe"))
        classes = np.unique([*labels, *found])
        table = anndata.AnnData(obs=pd.DataFrame(index=frame.index))
        scores = pd.DataFrame([stp.metrics.classification_scores(labels, found)])
        confusion = confusion_matrix(labels, found, labels=classes)
        details = {"classes": classes, "confusion": confusion, "scores": scores}
        table.uns["stp_probe"] = {**details, "params": {"label_key": options.label_key}}
        tables.save(stp.pl.confusion(table), options.out / f"confusion {name}.png")


def expression(sections: Sequence[Section], embed: Embedder, options: argparse.Namespace):
    """Predict the highly variable genes of each slide from its image; slides without an image are left out."""
    rows = []
    notes = [f"{one.name} has no image and is left out" for one in sections if one.slide is None]
    sections = [one for one in sections if one.slide is not None]
    if len(sections) < 2:
        raise ValueError(
            f"expression is predicted from other slides; of these {len(sections)} has an image"
        )
    shared = sorted(set.intersection(*(set(one.table.var_names) for one in sections)))
    for train, test in _folds(sections, options):
        notes += leaks(train, test) + seen_by_model(embed.path(test[0]), test, options.patient_key)
        chosen_on = sections if options.hvg == "paper" else train
        targets = Targets.choose([one.table for one in chosen_on], shared, options.genes)
        for section in test:
            measured = normalized(section.table, targets.genes)
            for name, predicted in predictions(train, section, embed, targets.genes):
                scores = targets.score(measured, predicted)
                own = Targets.of(targets.genes, measured).score(measured, predicted)
                scores |= {
                    f"{metric}, chosen on test": own[metric] for metric in ("PCC-V", "PCC-E")
                }
                rows += [(name, section.name, section.patient, 0, *pair) for pair in scores.items()]
    return "Expression predicted from images", METHODS, rows, notes


def _folds(
    sections: Sequence[Section], options: argparse.Namespace
) -> Iterator[tuple[list[Section], list[Section]]]:
    """Yield slides to train on and slides to test, slides and patients whole; a single slide has no others."""
    group = {one.name: one.patient if options.by == "patient" else one.name for one in sections}
    if len(sections) > 1 and len(set(group.values())) < 2:
        raise ValueError(
            f"all slides are of patient {sections[0].patient}; leave out slides with --by slide"
        )
    tested = [one.name for one in _tested(sections, options)]
    for out in dict.fromkeys(group[name] for name in tested):
        train = [one for one in sections if group[one.name] != out]
        yield train, [one for one in sections if group[one.name] == out and one.name in tested]


def _tested(sections: Sequence[Section], options: argparse.Namespace) -> list[Section]:
    names = {one.name for one in sections}
    if unknown := sorted(set(options.test or ()) - names):
        raise ValueError(f"no slide {unknown}; choose --test from {sorted(names)}")
    return [one for one in sections if not options.test or one.name in options.test]


def _labels(table: anndata.AnnData, key: str, where: str) -> np.ndarray:
    labels = table.obs[key].astype(str).to_numpy()
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"obs[{key!r}] of {where} has fewer than two classes of enough spots: {np.unique(labels)}"
        )
    return labels


TASKS = {"clustering": clustering, "probe": probe, "expression": expression}

if __name__ == "__main__":
    main()
