"""A small cohort on disk, for examples of the documentation."""

from pathlib import Path

import numpy as np
import pandas as pd
from tests.features import katherlab_25, write_katherlab

# Top left corners in µm of six tiles of 256 µm, in three columns.
CORNERS = [(256 * (tile % 3), 256 * (tile // 3)) for tile in range(6)]


def write_cohort(folder: Path, n_patients: int = 12) -> Path:
    """Write a cohort: features of slides, and `slides.csv` with the labels of its patients.

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
