"""What leaks into test slides: patients, spots that are nearly the same, slides that the model was trained on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from benchmarks.slides import Section, patient_of
from stp.metrics._folds import check_apart
from stp.retrieval.nearest import nearest

SAME = 0.99  # correlation from which two spots, or two patches, count as the same
SHARE = 0.01  # of the test spots that may have such a twin by chance
N_GENES, THUMBNAIL_PX, PATCH_UM = 1000, 24, 112.0
COARSE_PX = 7  # what is smoother than this is no detail: any two shades of stain are alike
MIN_DETAIL = 0.3  # standard deviation of gray values; white margins have none


def leaks(train: Sequence[Section], test: Sequence[Section]) -> list[str]:
    """Say what test slides share with those that were trained on; a slide in both sides is an error."""
    check_apart([one.name for one in train], [one.name for one in test])
    name, found = ", ".join(one.name for one in test), []
    if not train:
        return [f"{name}: the only slide, so folds share it; spots nearby are alike"]
    if shared := sorted({one.patient for one in train} & {one.patient for one in test}):
        found.append(
            f"{name}: patient {', '.join(shared)} is in training, too; nothing is said of a new patient"
        )
    found += _twins("expression", name, *(_expression(part) for part in _shared_genes(train, test)))
    pictures = [_pictures(side) for side in (train, test)]
    if all(pictures):
        found += _twins("image", name, *map(np.concatenate, pictures))
    return found


def seen_by_model(model: str | Path, test: Sequence[Section], patient_key: str) -> list[str]:
    """Say which test slides, and slides of the same patients, a model was trained on, as its folder tells.

    Its card names the stores of every stage, those of the gene encoder that it began with too; a run directory has
    their paths, from which patients are read. Stores that only the card names are looked for beside the others.
    """
    name, lines, stores = Path(model).name, _card_of(model), _paths_of(model)
    named = {store.name for store in stores} | {
        store for line in lines for store in _named_by(line)
    }
    if not named:
        return [
            f"model {name} tells no slides that it was trained on: whether these are among them is unknown"
        ]
    folders = {store.parent for store in stores} | {one.path.parent for one in test if one.path}
    paths = [folder / store for store in named for folder in folders if (folder / store).is_dir()]
    patients = {patient_of(path, patient_key) for path in paths}
    found = []
    if lost := sorted(named - {path.name for path in paths}):
        found.append(
            f"model {name} was trained on {', '.join(lost)}, too, of which nothing tells the patient"
        )
    for one in test:
        if f"{one.name}.zarr" in named:
            found.append(
                f"{one.name}: model {name} was trained on this slide, so its scores are transductive"
            )
        elif one.patient in patients:
            found.append(
                f"{one.name}: model {name} was trained on other slides of patient {one.patient}"
            )
    return found


def _card_of(model: str | Path) -> list[str]:
    """Read what the card says of training, a line per stage."""
    file = Path(model) / "config.json"
    return (
        json.loads(file.read_text()).get("card", {}).get("trained_on", []) if file.is_file() else []
    )


def _paths_of(model: str | Path) -> list[Path]:
    """Read the stores of a run directory."""
    file = Path(model) / "training.json"
    trained = json.loads(file.read_text()) if file.is_file() else {}
    return [Path(path) for side in ("stores", "validation") for path in trained.get(side, ())]


def _named_by(line: str) -> list[str]:
    """List the stores in a line like `align: 9 spots of C2.zarr, C3.zarr; weights chosen on 9 spots of C5.zarr`."""
    return [
        store
        for side in re.split(r"(?:^|; )[^;]*?\d+ spots of ", line)
        for store in side.split(", ")
        if store
    ]


def _shared_genes(train: Sequence[Section], test: Sequence[Section]):
    """Return counts of both sides in the same, most expressed genes."""
    shared = sorted(set.intersection(*(set(one.table.var_names) for one in (*train, *test))))
    sides = [[one.table[:, shared].X for one in side] for side in (train, test)]
    total = sum(np.asarray(X.sum(axis=0)).ravel() for X in sides[0])
    top = np.argsort(-total, kind="stable")[:N_GENES]
    return [[X[:, top] for X in side] for side in sides]


def _expression(counts: list) -> np.ndarray:
    values = np.concatenate([X.toarray() if hasattr(X, "toarray") else X for X in counts]).astype(
        np.float32
    )
    return np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1) * 1e4)


def _pictures(sections: Sequence[Section]) -> list[np.ndarray]:
    """Return the details of gray thumbnails of the patches of each slide that has an image, without empty ones."""
    found = []
    for one in sections:
        if (slide := one.slide) is None:
            continue
        window = {"size": THUMBNAIL_PX, "um_per_px": PATCH_UM / THUMBNAIL_PX}
        gray = slide.pyramid.read(slide.centers, **window).mean(axis=-1, dtype=np.float32)
        detail = (gray - uniform_filter(gray, (0, COARSE_PX, COARSE_PX))).reshape(len(gray), -1)
        found.append(detail[detail.std(axis=1) > MIN_DETAIL])
    return found


def _twins(what: str, name: str, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Count test spots that correlate all but perfectly with a training spot."""
    if not len(train) or not len(test):
        return []
    similarity = nearest(_standardized(test), _standardized(train), 1).similarity[:, 0]
    share = float((similarity > SAME).mean())
    if share <= SHARE:
        return []
    return [
        f"{name}: {share:.0%} of its spots have a training spot with nearly the same {what} (r > {SAME})"
    ]


def _standardized(values: np.ndarray) -> np.ndarray:
    centered = values - values.mean(axis=1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
