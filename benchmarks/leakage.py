"""What leaks into test slides: patients, spots that are nearly the same, slides that the model was trained on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from benchmarks.slides import Section, patient_of
from stp._splits import check_apart
from stp.retrieval import nearest

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
        found.append(f"{name}: patient {', '.join(shared)} is in training, too; nothing is said of a new patient")
    found += _twins("expression", name, *(_expression(part) for part in _shared_genes(train, test)))
    pictures = [_pictures(side) for side in (train, test)]
    if all(pictures):
        found += _twins("image", name, *map(np.concatenate, pictures))
    return found


def seen_by_model(model: str | Path, test: Sequence[Section], patient_key: str) -> list[str]:
    """Say which test slides, and slides of the same patients, a model was trained on, as its run directory tells."""
    name, file = Path(model).name, Path(model) / "training.json"
    if not file.is_file():
        return [f"model {name} has no training.json: nothing tells whether it was trained on what is tested"]
    trained = json.loads(file.read_text())
    stores = [Path(path) for side in ("stores", "validation") for path in trained[side]]
    names = {path.name.removesuffix(".zarr") for path in stores}
    patients = {patient_of(path, patient_key) for path in stores if path.exists()}
    found = []
    if "gene_encoder" in trained:
        found.append(f"model {name} began with a gene encoder of its own training, of which its run tells no slides")
    for one in test:
        if one.name in names:
            found.append(f"{one.name}: model {name} was trained on this slide, so its scores are transductive")
        elif one.patient in patients:
            found.append(f"{one.name}: model {name} was trained on other slides of patient {one.patient}")
    return found


def _shared_genes(train: Sequence[Section], test: Sequence[Section]):
    """Return counts of both sides in the same, most expressed genes."""
    shared = sorted(set.intersection(*(set(one.table.var_names) for one in (*train, *test))))
    sides = [[one.table[:, shared].X for one in side] for side in (train, test)]
    total = sum(np.asarray(X.sum(axis=0)).ravel() for X in sides[0])
    top = np.argsort(-total, kind="stable")[:N_GENES]
    return [[X[:, top] for X in side] for side in sides]


def _expression(counts: list) -> np.ndarray:
    values = np.concatenate([X.toarray() if hasattr(X, "toarray") else X for X in counts]).astype(np.float32)
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
    return [f"{name}: {share:.0%} of its spots have a training spot with nearly the same {what} (r > {SAME})"]


def _standardized(values: np.ndarray) -> np.ndarray:
    centered = values - values.mean(axis=1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
