"""Small cohorts with a planted signal, as feature files and a table."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd

from stp.io import read_cohort


def write_features(path: Path, features: np.ndarray) -> None:
    """Write a slide as KatherLab's STAMP 2.5 does, at 112 µm and 0.5 µm per pixel."""
    with h5py.File(path, "w") as file:
        file["feats"] = features.astype(np.float16)
        side = np.arange(len(features))
        file["coords"] = np.column_stack([side % 16, side // 16]).astype(np.float32) * 112
        file.attrs.update(
            stp_version="x", stamp_version="2.5.0", extractor="uni", unit="um", feat_type="tile"
        )
        file.attrs.update(tile_size_um=112.0, tile_size_px=224, code_hash="abc")


def make_cohort(
    folder: Path,
    *,
    n_patients: int = 24,
    n_tiles: int = 12,
    width: int = 8,
    share: float = 0.25,
    shift: float = 3.0,
    seed: int = 0,
    prefix: str = "P",
) -> anndata.AnnData:
    """Make patients of two classes; a share of the tiles of one class is shifted.

    Every fourth patient has two slides. `purity` follows the share of shifted tiles, and patients
    of the shifted class have their event earlier.
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
    table = pd.DataFrame(rows)
    # Slides of a patient need not be neighbors in the table.
    return read_cohort(table.sample(frac=1, random_state=1), root=folder)
