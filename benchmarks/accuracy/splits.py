"""Splits of slides into training and test, and the rows of their scores."""

import argparse
from collections.abc import Iterator, Sequence

import anndata
import numpy as np

from benchmarks.accuracy.slides import Section

Score = tuple[str, str, str, int, str, float]  # in the order of `tables.COLUMNS`
Split = tuple[list[Section], list[Section]]  # slides to train on, slides to test


def split(sections: Sequence[Section], options: argparse.Namespace) -> Iterator[Split]:
    """Yield slides to train on and slides to test; slides and patients stay whole."""
    group = {s.name: s.patient if options.by == "patient" else s.name for s in sections}
    if len(sections) > 1 and len(set(group.values())) < 2:
        raise ValueError(
            f"all slides are of patient {sections[0].patient}; leave out slides with --by slide"
        )
    tested = tested_sections(sections, options)
    for left_out in dict.fromkeys(group[section.name] for section in tested):
        train = [section for section in sections if group[section.name] != left_out]
        yield train, [section for section in tested if group[section.name] == left_out]


def tested_sections(sections: Sequence[Section], options: argparse.Namespace) -> list[Section]:
    """Return the slides that are tested."""
    names = {section.name for section in sections}
    unknown = sorted(set(options.test or ()) - names)
    if unknown:
        raise ValueError(f"no slide {unknown}; choose --test from {sorted(names)}")
    return [section for section in sections if not options.test or section.name in options.test]


def labels_of(table: anndata.AnnData, key: str, source: str) -> np.ndarray:
    """Return the classes of spots; raise ValueError if there are fewer than two."""
    labels = table.obs[key].astype(str).to_numpy()
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"obs[{key!r}] of {source} has fewer than two classes of enough spots: {classes}"
        )
    return labels


def score_rows(name: str, section: Section, seed: int, values: dict[str, float]) -> list[Score]:
    """Return a row for each metric of a slide."""
    return [
        (name, section.name, section.patient, seed, metric, value)
        for metric, value in values.items()
    ]
