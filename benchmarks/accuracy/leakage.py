"""What test slides share with training: patients, counts, images, slides the model has seen."""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

import stp
from benchmarks.accuracy.slides import Section, patient_of_store


def find_leaks(train: Sequence[Section], test: Sequence[Section]) -> list[str]:
    """Return notes on what test slides share with training slides.

    Raises
    ------
    ValueError
        A slide is on both sides.
    """
    name = ", ".join(section.name for section in test)
    check_apart(train, test)
    if not train:
        return [f"{name}: the only slide, so folds share it; spots nearby are alike"]
    notes = []
    shared = {section.patient for section in train} & {section.patient for section in test}
    if shared:
        patients = ", ".join(sorted(shared))
        notes.append(
            f"{name}: patient {patients} is in training, too; the scores do not show how well a "
            "new patient is predicted"
        )
    return [*notes, *_find_copies(train, test)]


def check_apart(train: Sequence[Section], test: Sequence[Section]) -> None:
    """Raise ValueError if a slide is on both sides of a split."""
    both = {section.name for section in train} & {section.name for section in test}
    if both:
        raise ValueError(
            f"slide {', '.join(sorted(both))} is on both sides of the split; keep it on one side"
        )


def _find_copies(train: Sequence[Section], test: Sequence[Section]) -> Iterator[str]:
    """Yield a note for each test slide that shares counts or the image with a training slide."""
    paths = sorted({str(section.path) for section in (*train, *test)})
    for pair in _duplicates(tuple(paths)).itertuples():
        for known in train:
            for section in test:
                if {str(known.path), str(section.path)} == {pair.first, pair.second}:
                    yield (
                        f"{section.name}: {pair.kind} with {known.name} of training, "
                        f"share {pair.share:.0%} ({pair.note})"
                    )


@functools.lru_cache
def _duplicates(paths: tuple[str, ...]) -> pd.DataFrame:
    """Find the duplicates among stores once; most folds of a protocol have the same stores."""
    return stp.tl.find_duplicates(paths)


def seen_by_model(model: str | Path, test: Sequence[Section], patient_key: str) -> list[str]:
    """Return notes on test slides, and slides of the same patients, that a model was trained on.

    The card of a model names the stores of every stage, also those of the gene encoder that it
    started from. A run directory has their paths, from which patients are read. Stores that only
    the card names are searched for next to the others.
    """
    name = Path(model).name
    stores = _paths_in_run(model)
    names = {store.name for store in stores}
    for line in _training_in_card(model):
        names.update(_stores_in_line(line))
    if not names:
        return [
            f"model {name} names no slides that it was trained on: whether these are among them "
            "is unknown"
        ]
    folders = {store.parent for store in stores}
    folders |= {section.path.parent for section in test if section.path}
    candidates = [folder / store for store in names for folder in folders]
    paths = [path for path in candidates if path.is_dir()]
    patients = {patient_of_store(path, patient_key) for path in paths}
    notes = []
    missing = sorted(names - {path.name for path in paths})
    if missing:
        notes.append(
            f"model {name} was trained on {', '.join(missing)}, too, whose patient is unknown"
        )
    for section in test:
        if f"{section.name}.zarr" in names:
            notes.append(
                f"{section.name}: model {name} was trained on this slide, so its scores are "
                "transductive"
            )
        elif section.patient in patients:
            notes.append(
                f"{section.name}: model {name} was trained on other slides of patient "
                f"{section.patient}"
            )
    return notes


def _training_in_card(model: str | Path) -> list[str]:
    """Return what the card says about training, a line per stage."""
    file = Path(model) / "config.json"
    if not file.is_file():
        return []
    return json.loads(file.read_text()).get("card", {}).get("trained_on", [])


def _paths_in_run(model: str | Path) -> list[Path]:
    """Return the stores of a run directory."""
    file = Path(model) / "training.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    paths = record.get("paths", {})
    return [Path(path) for side in ("stores", "validation") for path in paths.get(side, ())]


def _stores_in_line(line: str) -> list[str]:
    """List the stores in a line of a card.

    Such a line is `align: 9 spots of C2.zarr, C3.zarr; weights chosen on 9 spots of C5.zarr`.
    """
    sides = re.split(r"(?:^|; )[^;]*?\d+ spots of ", line)
    return [store for side in sides for store in side.split(", ") if store]
