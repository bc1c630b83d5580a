"""Do explanations of slide models find the genes that were planted, and none if there are none?

Synthetic slides have six programs of genes, which vary over the tissue. The class of a patient
follows one of them: in patients of the class "high", a part of the tissue expresses it more.
Vectors of tiles and of measured spots are noisy views of the programs in one space, as a Stamp
makes them. So the figures are about the explanation, not about an encoder.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import spatialdata
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix
from spatialdata.models import TableModel

import stp
from benchmarks.measure import Row, at_least, run_once

if TYPE_CHECKING:
    from anndata import AnnData

N_PROGRAMS = 6
N_PROGRAM_GENES = 10
N_OTHER_GENES = 60
WIDTH = 32
SMOOTH_TILES = 2.0  # standard deviation of the filter that makes programs vary slowly
NOISE = 0.15  # of each of the features of a tile or a spot, next to programs of variance 1
SHIFT = 2.0  # of the planted program in a part of the tissue, in standard deviations
SHARE = 0.25  # of the tissue
N_FIRST = 10
N_DRAWS = 20  # of permuted classes
LEAST_SHARE = 0.8  # of draws without a gene below q = 0.1; an exact test gives 0.9 on average
MODEL = {"name": "planted", "class": "Stamp", "digest": "5" * 64, "vocabulary": None}
CONFIG = stp.train.SlideConfig(
    epochs=40, patience=40, batch_size=8, learning_rate=2e-3, hidden=32, attention=16, dropout=0.0
)
GENES = [f"P{program}G{gene}" for program in range(N_PROGRAMS) for gene in range(N_PROGRAM_GENES)]
GENES += [f"OTHER{gene}" for gene in range(N_OTHER_GENES)]
PLANTED = GENES[:N_PROGRAM_GENES]


@dataclasses.dataclass(frozen=True)
class Tissue:
    """Programs of the places of a slide."""

    cells: np.ndarray  # (n, 2) row and column
    programs: np.ndarray  # (n, N_PROGRAMS)


def planted_rows(
    folder: Path, *, n_patients: int = 60, size: int = 14, n_draws: int = N_DRAWS
) -> Iterator[Row]:
    """Yield how many planted genes are among the first ten of both roads, and what luck finds.

    Parameters
    ----------
    folder
        Folder of slides, runs and results; what it has is not computed again.
    n_patients
        Number of patients, each with one slide; one half trains the model of road B.
    size
        Number of tiles across a slide.
    n_draws
        Number of permutations of the classes.
    """
    name = f"queries_planted_{n_patients}_{size}"
    cohort = make_cohort(folder / name, n_patients, size)
    spots = make_spots(n_slides=4, size=size + 6)
    results = run_once(
        folder / f"{name}.json", lambda: [explain_both(cohort, spots, folder / name / "true")]
    )[0]
    split = f"{n_patients} patients, 5 folds"
    for road, label in (("tiles", "A, predicted genes of tiles"), ("spots", "B, measured spots")):
        yield {
            "measured": f"planted genes among the first ten: {label}",
            "result": results[f"{road}_hits"],
            "unit": "genes of 10",
            "split": split,
            "seeds": 1,
            "baseline": f"{N_FIRST * N_PROGRAM_GENES / len(GENES):.1f} by chance",
        } | at_least(N_FIRST, results[f"{road}_hits"])
        yield {
            "measured": f"largest q of the planted genes: {label}",
            "result": float(f"{results[f'{road}_planted_q']:.3g}"),
            "unit": "q",
            "split": split,
            "seeds": 1,
        }
    draws = [
        run_once(
            folder / f"{name}_permuted_{draw}.json",
            lambda draw=draw: [
                explain_both(permute(cohort, draw), spots, folder / name / f"permuted_{draw}")
            ],
        )[0]
        for draw in range(n_draws)
    ]
    for road, label in (("tiles", "A"), ("spots", "B")):
        smallest = [draw[f"{road}_smallest_q"] for draw in draws]
        n_above = int(np.sum(np.array(smallest) > 0.1))
        yield {
            "measured": f"permuted classes, draws with all q above 0.1: road {label}",
            "result": n_above,
            "unit": f"of {n_draws} draws",
            "split": split,
            "seeds": n_draws,
            "baseline": f"{0.9 * n_draws:g} if the test is exact",
        } | at_least(LEAST_SHARE * n_draws, n_above)
        yield {
            "measured": f"permuted classes, smallest q of all genes: road {label}",
            "result": summarize(smallest),
            "unit": "q",
            "split": split,
            "seeds": n_draws,
        }
        without = [draw[f"{road}_smallest_p"] for draw in draws]
        yield {
            "measured": f"the same without the test of the model's predictions: road {label}",
            "result": summarize(without),
            "unit": "p",
            "split": split,
            "seeds": n_draws,
        }


def summarize(values: list[float]) -> str:
    """Return the median and the smallest of probabilities, with two digits."""
    return f"median {np.median(values):.2g}, smallest {min(values):.2g}"


def explain_both(cohort: "AnnData", spots: "AnnData", folder: Path) -> Row:
    """Explain models of a cohort on both roads, and return what they find."""
    target = stp.train.Classes("label", positive="high")
    stp.tl.assign_folds(cohort, "label", n_folds=5)
    stp.train.cross_validate_slides(cohort, folder / "cv", targets=target, config=CONFIG)
    stp.tl.explain_slides(cohort, folder / "cv", progress=False)
    is_training = (cohort.obs["stp_fold"] < 3).to_numpy()  # of road B, whose model is one
    model = stp.train.fit_slides(
        cohort[is_training].copy(), folder / "fit", targets=target, config=CONFIG
    )
    table = spots.copy()
    stp.tl.explain_by_spots(table, model, slide_key="section", cohort=cohort[~is_training].copy())
    by_tiles = cohort.uns["stp_slide_genes"]["genes"]
    result = _summarize("tiles", by_tiles[by_tiles["side"] == "all"])
    result |= _summarize("spots", table.uns["stp_spot_genes"]["genes"])
    result["agreement"] = float(table.uns["stp_spot_genes"]["agreement"]["agreement"].mean())
    return result


def permute(cohort: "AnnData", seed: int) -> "AnnData":
    """Return the cohort with the classes of its patients in another order."""
    permuted = cohort.copy()
    labels = cohort.obs["label"].to_numpy(dtype=object)
    permuted.obs["label"] = np.random.default_rng(seed).permutation(labels)
    return permuted


def make_cohort(folder: Path, n_patients: int, size: int) -> "AnnData":
    """Write tile stores with predicted genes, and return their cohort; every second is "high"."""
    reference = make_spots(n_slides=2, size=size + 6, seed=1)
    rows = []
    for number in range(n_patients):
        path = folder / "tiles" / f"S{number:03d}.zarr"
        rows.append(
            {
                "patient": f"P{number:03d}",
                "slide": path.stem,
                "path": str(path),
                "label": ("low", "high")[number % 2],
            }
        )
        if path.exists():
            continue
        rng = np.random.default_rng((2, number))
        tissue = draw_tissue(rng, size, is_high=number % 2 == 1)
        table = anndata.AnnData(obs=pd.DataFrame(index=[f"t{n}" for n in range(len(tissue.cells))]))
        table.obsm["spatial"] = tissue.cells[:, ::-1] * 224.0
        add_vectors(table, rng, tissue, "images")
        stp.tl.predict_expression(table, reference, genes=GENES, n_neighbors=15)
        partial = path.with_suffix(".partial.zarr")
        spatialdata.SpatialData(tables={"table": TableModel.parse(table)}).write(
            partial, overwrite=True
        )
        partial.rename(path)
    return stp.io.read_cohort(pd.DataFrame(rows), use_rep="X_stp_images_aligned")


def make_spots(*, n_slides: int, size: int, seed: int = 0) -> "AnnData":
    """Return measured spots with vectors of genes and of images; every second slide is "high"."""
    tables = []
    for number in range(n_slides):
        rng = np.random.default_rng((3, seed, number))
        tissue = draw_tissue(rng, size, is_high=number % 2 == 1)
        counts = rng.poisson(3 * np.exp(0.7 * tissue.programs @ _gene_programs()))
        table = anndata.AnnData(csr_matrix(counts, dtype=np.float32))
        table.var_names = GENES
        table.obs_names = [f"{number}_{n}" for n in range(len(counts))]
        table.obs["section"] = f"section{number}"
        table.obs[["array_row", "array_col"]] = tissue.cells
        table.obsm["spatial"] = tissue.cells[:, ::-1] * 100.0
        add_vectors(table, rng, tissue, "genes")
        add_vectors(table, rng, tissue, "images")
        tables.append(table)
    return stp.get.concat(tables)


def draw_tissue(rng: np.random.Generator, size: int, *, is_high: bool) -> Tissue:
    """Draw programs that vary slowly over an ellipse of tissue."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    stretch = rng.uniform(0.75, 1.0, 2)
    is_tissue = (axis[:, None] / stretch[0]) ** 2 + (axis / stretch[1]) ** 2 <= 1
    maps = np.stack([_draw_field(rng, size) for _ in range(N_PROGRAMS + 1)])
    programs = maps[:N_PROGRAMS, is_tissue].T
    if is_high:
        place = maps[N_PROGRAMS, is_tissue]
        programs[place >= np.quantile(place, 1 - SHARE), 0] += SHIFT
    return Tissue(np.argwhere(is_tissue), programs)


def add_vectors(table: "AnnData", rng: np.random.Generator, tissue: Tissue, kind: str) -> None:
    """Add aligned vectors, which are views of the programs with noise and an offset."""
    fixed = np.random.default_rng(4)
    loadings = np.linalg.qr(fixed.normal(size=(WIDTH, N_PROGRAMS)))[0].T
    offset = 0.3 * np.random.default_rng({"images": 5, "genes": 6}[kind]).normal(size=WIDTH)
    vectors = tissue.programs @ loadings + offset
    vectors += NOISE * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table.obsm[f"X_stp_{kind}_aligned"] = vectors.astype(np.float32)
    params = {"tile_um": 112.0, "um_per_px": 0.5} if kind == "images" else {"tokens_key": ""}
    table.uns[f"X_stp_{kind}"] = {"params": params, "model": MODEL}


def _draw_field(rng: np.random.Generator, size: int) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=(size, size)), SMOOTH_TILES, mode="wrap")
    return (field - field.mean()) / field.std()


def _gene_programs() -> np.ndarray:
    """Return which program each gene follows (N_PROGRAMS, n_genes)."""
    follows = np.zeros((N_PROGRAMS, len(GENES)))
    for program in range(N_PROGRAMS):
        follows[program, program * N_PROGRAM_GENES : (program + 1) * N_PROGRAM_GENES] = 1
    return follows


def _summarize(road: str, genes: pd.DataFrame) -> Row:
    is_planted = genes["gene"].isin(PLANTED)
    return {
        f"{road}_hits": int(is_planted.iloc[:N_FIRST].sum()),
        f"{road}_planted_q": round(float(genes["q"][is_planted].max()), 5),
        f"{road}_smallest_q": round(float(genes["q"].min()), 5),
        f"{road}_smallest_p": float(genes["p"].min()),
    }
