"""What test slides share with training: patients, nearly equal spots, slides the model has seen."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from benchmarks.accuracy.slides import Section, patient_of_store

SAME = 0.99  # correlation from which two spots, or two patches, count as the same
MAX_SHARE = 0.01  # of the test spots that may have a twin by chance
N_GENES = 1000
THUMBNAIL_PIXELS = 24
PATCH_UM = 112.0
COARSE_PIXELS = 7  # smoother structure is no detail: any two shades of stain are alike
MIN_DETAIL = 0.3  # standard deviation of gray values; white margins have none
BLOCK = 1024  # test spots that are compared at a time


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
    train_counts, test_counts = _counts_of_shared_genes(train, test)
    notes += _find_twins("expression", name, _expression(train_counts), _expression(test_counts))
    train_pictures = _detail_of_patches(train)
    test_pictures = _detail_of_patches(test)
    if train_pictures and test_pictures:
        notes += _find_twins(
            "image", name, np.concatenate(train_pictures), np.concatenate(test_pictures)
        )
    return notes


def check_apart(train: Sequence[Section], test: Sequence[Section]) -> None:
    """Raise ValueError if a slide is on both sides of a split."""
    both = {section.name for section in train} & {section.name for section in test}
    if both:
        raise ValueError(
            f"slide {', '.join(sorted(both))} is on both sides of the split; keep it on one side"
        )


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


def _counts_of_shared_genes(train: Sequence[Section], test: Sequence[Section]) -> tuple[list, list]:
    """Return counts of both sides in the same, most expressed genes."""
    shared = sorted(set.intersection(*(set(s.table.var_names) for s in (*train, *test))))
    train_counts = [section.table[:, shared].X for section in train]
    test_counts = [section.table[:, shared].X for section in test]
    total = sum(np.asarray(counts.sum(axis=0)).ravel() for counts in train_counts)
    top = np.argsort(-total, kind="stable")[:N_GENES]
    return [counts[:, top] for counts in train_counts], [counts[:, top] for counts in test_counts]


def _expression(counts: list) -> np.ndarray:
    dense = [part.toarray() if hasattr(part, "toarray") else part for part in counts]
    values = np.concatenate(dense).astype(np.float32)
    return np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1) * 1e4)


def _detail_of_patches(sections: Sequence[Section]) -> list[np.ndarray]:
    """Return the details of gray thumbnails of the patches of each slide, without empty ones."""
    details = []
    for section in sections:
        slide = section.slide
        if slide is None:
            continue
        thumbnails = slide.pyramid.read(
            slide.centers, size=THUMBNAIL_PIXELS, um_per_px=PATCH_UM / THUMBNAIL_PIXELS
        )
        gray = thumbnails.mean(axis=-1, dtype=np.float32)
        smooth = uniform_filter(gray, (0, COARSE_PIXELS, COARSE_PIXELS))
        detail = (gray - smooth).reshape(len(gray), -1)
        details.append(detail[detail.std(axis=1) > MIN_DETAIL])
    return details


def _find_twins(kind: str, name: str, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Return a note if test spots correlate all but perfectly with training spots."""
    if not len(train) or not len(test):
        return []
    train = _standardize(train)
    highest = [
        (_standardize(test[start : start + BLOCK]) @ train.T).max(axis=1)
        for start in range(0, len(test), BLOCK)
    ]
    share = float((np.concatenate(highest) > SAME).mean())
    if share <= MAX_SHARE:
        return []
    return [
        f"{name}: {share:.0%} of its spots have a training spot with nearly the same {kind} "
        f"(r > {SAME})"
    ]


def _standardize(values: np.ndarray) -> np.ndarray:
    centered = values - values.mean(axis=1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
