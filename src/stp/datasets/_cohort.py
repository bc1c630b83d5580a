"""A synthetic cohort: slides of patients of two hospitals, with labels that follow the tissue."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator, SeedSequence
from scipy import special

from stp.datasets._nuclei import draw_nuclei
from stp.datasets._scan import Stain, scan_slide, vary_stain
from stp.datasets._tissue import CELL_UM, DOMAINS, Tissue, draw_noise, draw_tissue

if TYPE_CHECKING:
    import pandas as pd

N_THREADS = 2
# Hospital B has a bluer hematoxylin, a paler and more orange eosin, and a colder light.
STAINS = {
    "A": Stain([[0.65, 0.70, 0.29], [0.16, 0.88, 0.40]], [243, 242, 240]),
    "B": Stain([[0.85, 0.68, 0.22], [0.08, 0.68, 0.52]], [236, 241, 247]),
}
SHARE_OF_A = 2 / 3  # of the patients
TWO_SLIDES_EVERY = 6  # patients
INFILTRATE = {"MSI": (0.15, 0.45), "MSS": (0.0, 0.2)}  # share of the tissue, lowest and highest
SD_WITHIN_PATIENT = 0.02  # of that share, between slides
LENGTH_UM = 120.0  # of patches of infiltrate
MEAN_DAYS = 450.0  # of survival without infiltrate
PROTECTION = 6.0  # how much the log hazard falls from no infiltrate to nothing else
OBSERVED_DAYS = (300.0, 2500.0)  # shortest and longest observation
SD_TUMOR_PERCENT = 3.0  # of the estimate of the tumor content


def synthetic_cohort(
    folder: str | Path,
    *,
    n_patients: int = 60,
    size_um: float = 1200.0,
    um_per_px: float = 1.75,
    seed: int = 0,
) -> "pd.DataFrame":
    """Write a synthetic cohort: H&E-like slides, and tables with the labels of their patients.

    A share of each tissue is covered by patches of lymphocytes. Patients with microsatellite
    instability (MSI) have more of them than others (MSS), as far as the two overlap. Patients with
    more lymphocytes live longer. Two thirds of the patients are of hospital A, and the others are
    of hospital B, whose stain and scanner differ. Half of the patients of each hospital have MSI.
    Every sixth patient has two slides.

    Parameters
    ----------
    folder
        Folder of the cohort. Files of an earlier call with the same names are replaced.
    n_patients
        Number of patients, at least 4.
    size_um
        Side of a slide in µm, at least 500. With 1200 a slide has about 75 tiles of 112 µm.
    um_per_px
        µm per pixel of the slides.
    seed
        Random seed for the labels and the slides.

    Returns
    -------
    DataFrame with a row per slide: `patient`, `slide`, `path`, and `infiltrate`, the share of the
    tissue that lymphocytes cover, which no table on disk has.

    Notes
    -----
    The folder gets:

    - `slides/<slide>.tif`: a tiled TIFF with JPEG compression, about 0.1 MB with 1200 µm.
    - `slides.csv`: `patient`, `slide`.
    - `clinical.csv`: `patient`; `hospital`, "A" or "B"; `msi`, "MSI" or "MSS"; `os_days` and
      `os_event`, overall survival; `tumor_percent`, a noisy estimate of the tumor content.

    Raises
    ------
    ValueError
        If there are too few patients, or a size is too small.

    Examples
    --------
    >>> slides = stp.datasets.synthetic_cohort("synthetic", n_patients=4, size_um=500)
    >>> slides["slide"].tolist()
    ['P01-1', 'P01-2', 'P02-1', 'P03-1', 'P04-1']
    >>> stp.io.read_wsi("synthetic/slides/P01-1.tif", tile_um=112).tables["table"].n_vars
    0
    """
    import pandas as pd
    from threadpoolctl import threadpool_limits

    if n_patients < 4 or not 500 <= size_um < np.inf or not 0 < um_per_px < np.inf:
        raise ValueError(
            "n_patients must be at least 4, size_um at least 500, and um_per_px positive: "
            f"{n_patients}, {size_um}, {um_per_px}"
        )
    folder = Path(folder)
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    clinical = _draw_patients(n_patients, seed)
    slides = _draw_slides(clinical, folder, seed)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(N_THREADS) as pool:
        write = partial(_write_slide, size_um=size_um, um_per_px=um_per_px)
        tumor = list(pool.map(write, slides))
    table = pd.DataFrame(
        {
            "patient": [slide.patient for slide in slides],
            "slide": [slide.path.stem for slide in slides],
            "path": [str(slide.path) for slide in slides],
            "infiltrate": [slide.infiltrate for slide in slides],
        }
    )
    tumor_percent = 100 * pd.Series(tumor).groupby(table["patient"]).mean()
    clinical["tumor_percent"] += clinical["patient"].map(tumor_percent)
    clinical["tumor_percent"] = clinical["tumor_percent"].clip(0, 100).round(1)
    table[["patient", "slide"]].to_csv(folder / "slides.csv", index=False, encoding="utf-8")
    clinical.drop(columns="infiltrate").to_csv(
        folder / "clinical.csv", index=False, encoding="utf-8"
    )
    return table


@dataclass(frozen=True)
class _Slide:
    """A slide that is to be drawn."""

    patient: str
    hospital: str
    path: Path
    infiltrate: float  # share of the tissue
    rng: Generator


def _draw_slides(clinical: "pd.DataFrame", folder: Path, seed: int) -> list[_Slide]:
    """Draw the infiltrate of each slide."""
    slides = []
    for number, row in clinical.iterrows():
        rng = np.random.default_rng(SeedSequence(seed, spawn_key=(1, number)))
        n_slides = 2 if number % TWO_SLIDES_EVERY == 0 else 1
        for position, slide_rng in enumerate(rng.spawn(n_slides), 1):
            path = folder / "slides" / f"{row['patient']}-{position}.tif"
            difference = SD_WITHIN_PATIENT * slide_rng.standard_normal()
            infiltrate = max(0.0, row["infiltrate"] + difference)
            slides.append(_Slide(row["patient"], row["hospital"], path, infiltrate, slide_rng))
    return slides


def _write_slide(slide: _Slide, size_um: float, um_per_px: float) -> float:
    """Write the picture of a slide, and return the share of its tissue that is tumor."""
    tissue = _draw_infiltrated(slide.rng, size_um, slide.infiltrate)
    _write_picture(slide.path, slide.rng, tissue, um_per_px, STAINS[slide.hospital])
    return float(np.average(tissue.shares[DOMAINS.index("tumor")], weights=tissue.mask))


def _draw_patients(n_patients: int, seed: int) -> "pd.DataFrame":
    """Draw hospital, class, infiltrate and survival of each patient, and the error of the tumor."""
    import pandas as pd

    n_of_a = round(SHARE_OF_A * n_patients)
    rows = []
    for number in range(n_patients):
        rng = np.random.default_rng(SeedSequence(seed, spawn_key=(0, number)))
        msi = ("MSI", "MSS")[number % 2]
        infiltrate = rng.uniform(*INFILTRATE[msi])
        days = rng.exponential(MEAN_DAYS * np.exp(PROTECTION * infiltrate))
        observed_days = rng.uniform(*OBSERVED_DAYS)
        rows.append(
            {
                "patient": f"P{number + 1:02d}",
                "hospital": "A" if number < n_of_a else "B",
                "msi": msi,
                "os_days": max(1, round(min(days, observed_days))),
                "os_event": int(days <= observed_days),
                "infiltrate": infiltrate,
                "tumor_percent": SD_TUMOR_PERCENT * rng.standard_normal(),
            }
        )
    return pd.DataFrame(rows)


def _draw_infiltrated(rng: Generator, size_um: float, infiltrate: float) -> Tissue:
    """Draw a tissue whose only lymphocytes are patches that cover this share of it."""
    n_cells = int(np.ceil(size_um / CELL_UM))
    tissue = draw_tissue(rng, (n_cells, n_cells))
    shares = tissue.shares.copy()
    immune = DOMAINS.index("immune")
    shares[DOMAINS.index("stroma")] += shares[immune]
    shares[immune] = 0
    height = draw_noise(rng, tissue.mask.shape, LENGTH_UM)
    is_covered = tissue.mask == 1
    edge = np.quantile(height[is_covered], 1 - min(infiltrate, 1))
    patches = special.expit((height - edge) / 0.05)
    shares *= 1 - patches
    shares[immune] = patches
    fat = tissue.fat * (1 - patches)
    return dataclasses.replace(tissue, shares=shares, fat=fat)


def _write_picture(
    path: Path, rng: Generator, tissue: Tissue, um_per_px: float, stain: Stain
) -> None:
    """Scan a tissue into a tiled TIFF with its µm per pixel, as scanners write it."""
    import tifffile

    nuclei_rng, scan_rng = rng.spawn(2)
    nuclei = draw_nuclei(nuclei_rng, tissue)
    height, width = (int(n * CELL_UM / um_per_px) for n in tissue.mask.shape)
    stain = vary_stain(scan_rng, stain)
    image = scan_slide(scan_rng, tissue, nuclei, (height, width), um_per_px, stain=stain)
    tifffile.imwrite(
        path,
        np.moveaxis(image, 0, -1),
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        resolution=(1e4 / um_per_px, 1e4 / um_per_px),
        resolutionunit="CENTIMETER",
    )
