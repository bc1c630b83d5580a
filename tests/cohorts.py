"""Small cohorts with a planted signal, as feature files, tables and the file of a study."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from tests.features import katherlab_25, write_katherlab

from stp.io import read_cohort

# Top left corners in µm of six tiles of 256 µm, in three columns.
CORNERS = [(256 * (tile % 3), 256 * (tile // 3)) for tile in range(6)]

STUDY = """
output_dir = "out"
[cohort]
slides = "slides.csv"
clinical = "clinical.csv"
root = "features"
[[target]]
classes = "EGFR"
positive = "mutated"
[fit]
epochs = 6
hidden = 16
attention = 8
learning_rate = 5e-3
device = "cpu"
[cross_validation]
n_folds = 3
[scores]
n_resamples = 100
"""


def write_features(path: Path, features: np.ndarray, **attributes) -> None:
    """Write a slide as KatherLab's STAMP 2.5 does, at 112 µm and 0.5 µm per pixel."""
    number = np.arange(len(features))
    n_columns = round(len(features) ** 0.5)
    corners = np.column_stack([number % n_columns, number // n_columns]) * 112
    attributes = katherlab_25(tile_um=112.0) | attributes
    write_katherlab(path, features.astype(np.float16), corners, **attributes)


def write_slides(
    folder: Path,
    *,
    n_patients: int = 24,
    n_tiles: int = 12,
    width: int = 8,
    share: float = 0.25,
    shift: float = 3.0,
    seed: int = 0,
    prefix: str = "P",
) -> pd.DataFrame:
    """Write features of patients of two classes; a share of the tiles of one class is shifted.

    Every fourth patient has two slides. `purity` follows the share of shifted tiles, and patients
    of the shifted class have their event earlier. Slides of a patient need not be neighbors in the
    table that is returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    direction = np.zeros(width)
    direction[: max(1, width // 4)] = 1
    rows = []
    for number in range(n_patients):
        patient = f"{prefix}{number:03d}"
        is_mutated = number % 2 == 0
        time = rng.exponential(300 if is_mutated else 1500) + 1
        for slide in range(2 if number % 4 == 3 else 1):
            features = rng.normal(size=(n_tiles + number % 3, width))
            n_shifted = max(1, round(share * len(features))) if is_mutated else 0
            features[rng.permutation(len(features))[:n_shifted]] += shift * direction
            name = f"{patient}_{slide}"
            write_features(folder / f"{name}.h5", features)
            rows.append(
                {
                    "patient": patient,
                    "slide": name,
                    "EGFR": "mutated" if is_mutated else "wild type",
                    "purity": 50.0 + 100 * is_mutated + number,
                    "days": time,
                    "event": int(number % 5 != 4),
                    "fold": number // 2 % 3,
                }
            )
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def make_cohort(folder: Path, **options) -> anndata.AnnData:
    """Make the cohort of :func:`write_slides`."""
    return read_cohort(write_slides(folder, **options), root=folder)


def write_study(folder: Path, text: str = STUDY, **options) -> Path:
    """Write features, `slides.csv`, `clinical.csv` and the file of a study, and return its path."""
    table = write_slides(folder / "features", **options)
    table["site"] = "hospital " + (table["fold"] % 3).astype(str)
    table[["patient", "slide"]].to_csv(folder / "slides.csv", index=False)
    patients = table.drop(columns="slide").drop_duplicates().sort_values("patient")
    patients.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.toml").write_text(text)
    return folder / "cohort.toml"


def write_cohort(folder: Path, n_patients: int = 12) -> Path:
    """Write a cohort for examples: features of slides, and `slides.csv` with labels of patients.

    Patients P0, P2, ... have mutated EGFR and features that are larger by one. P0 has two slides.
    """
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n_patients):
        patient = f"P{number}"
        for slide in (patient, "extra") if number == 0 else (patient,):
            shift = 1 - number % 2
            features = rng.normal(size=(6, 8)) + shift
            write_katherlab(
                folder / f"{slide}.h5", features.astype(np.float16), CORNERS, **katherlab_25()
            )
            rows.append(
                {
                    "patient": patient,
                    "slide": slide,
                    "EGFR": "mutated" if shift else "wild type",
                    "site": f"hospital {number % 4}",
                    "days": 100 + 10 * number,
                    "event": number // 2 % 2,
                    "purity": number / n_patients,
                }
            )
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    return folder
