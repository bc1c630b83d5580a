"""Read the slots of a cohort, which is a table with one row per slide."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview
from stp.tables import keys
from stp.tables.table import require, require_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MAKER = "cohort = stp.io.read_cohort(slides)"


@dataclass(frozen=True)
class BagSource:
    """Where the features of a slide are.

    Parameters
    ----------
    patient
        Id of the patient.
    slide
        Id of the slide.
    path
        Path of the tile store or feature file.
    use_rep
        Name of the features in `obsm`, if `path` is a store.
    table_key
        Name of the table, if `path` is a store.
    n_tiles
        Number of tiles.
    width
        Number of features per tile.
    dtype
        Type of the features, such as "float16".
    """

    patient: str
    slide: str
    path: Path
    use_rep: str
    table_key: str
    n_tiles: int
    width: int
    dtype: str


def features_record(cohort: "AnnData") -> dict[str, Any]:
    """Return how the features of a cohort were made.

    The entries are `model` (name, class and digest, or None), `writer`, `tile_um` and `um_per_px`
    (None if unknown), `width`, `dtype`, `use_rep` and `table_key`.

    Raises
    ------
    KeyError
        The table has no such record, for example because `anndata.concat` dropped it.
    """
    entry = require(cohort, "uns", keys.COHORT, MAKER)
    if "features" not in entry:
        raise KeyError(f"adata.uns[{keys.COHORT!r}]['features'] is missing; run {MAKER} first")
    return dict(entry["features"])


def bag_sources(cohort: "AnnData") -> list[BagSource]:
    """Return where the features of each slide of a cohort are, in the order of its rows.

    Raises
    ------
    KeyError
        The table is no cohort.
    ValueError
        There is no slide, a slide is there twice, or a slide has no patient.
    FileNotFoundError
        Features of slides are no longer at their path.
    """
    features = features_record(cohort)
    names = (keys.PATIENT, keys.SLIDE_ID, keys.PATH, keys.N_TILES)
    columns = {name: require(cohort, "obs", name, MAKER) for name in names}
    patients = patient_ids(cohort)
    slides = columns[keys.SLIDE_ID].astype(str)
    if not len(slides):
        raise ValueError("the cohort has no slide; check how its rows were chosen")
    if slides.duplicated().any():
        raise ValueError(
            f"slides are in the cohort twice: {preview(slides[slides.duplicated()])}; "
            "leave out one row of each"
        )
    paths = [Path(path) for path in columns[keys.PATH].astype(str)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"the features of {count(len(missing), 'slide')} are no longer at their path: "
            f"{preview(missing)}; run {MAKER} with the paths of today"
        )
    rows = zip(patients, slides, paths, columns[keys.N_TILES], strict=True)
    return [
        BagSource(
            patient,
            slide,
            path,
            str(features["use_rep"]),
            str(features["table_key"]),
            int(n_tiles),
            int(features["width"]),
            str(features["dtype"]),
        )
        for patient, slide, path, n_tiles in rows
    ]


def patient_ids(cohort: "AnnData", patient_key: str = keys.PATIENT) -> np.ndarray:
    """Return the id of the patient of each slide (n_slides,), as text.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Slides have no patient.
    """
    column = require_column(cohort, patient_key, "patient_key")
    has_no_id = (column.isna() | (column.astype(str) == "")).to_numpy(dtype=bool)
    if has_no_id.any():
        raise ValueError(
            f"slides have no patient in obs[{patient_key!r}]: "
            f"{preview(cohort.obs_names[has_no_id])}; write one for each slide"
        )
    return column.astype(str).to_numpy(dtype=object)


def patient_labels(
    cohort: "AnnData", column: str, *, patient_key: str = keys.PATIENT
) -> "pd.Series":
    """Return one value per patient, in the order in which the cohort first names them.

    Parameters
    ----------
    cohort
        Table with a row per slide.
    column
        Name of a column of `obs`.
    patient_key
        Column of `obs` with the patients.

    Returns
    -------
    The values, with ids of patients as index. A patient whose slides all lack a value has none.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Slides of a patient have different values, or only a part of them has one.
    """
    values = require_column(cohort, column, "column")
    patients = patient_ids(cohort, patient_key)
    different = differing_patients(values, patients)
    if len(different):
        examples = values[patients == different[0]].astype(object)
        shown = [repr(value) for value in examples.where(examples.notna(), None).unique()]
        raise ValueError(
            f"slides of {count(len(different), 'patient')} have different values of "
            f"obs[{column!r}]: {preview(different)}, with {preview(shown)}; "
            "give all slides of a patient one value"
        )
    labels = values.set_axis(patients)
    return labels[~labels.index.duplicated()]


def differing_patients(values: "pd.Series", patients: np.ndarray) -> np.ndarray:
    """Return the patients whose slides differ in a value; a missing value differs from others."""
    import pandas as pd

    codes, _ = pd.factorize(values.astype(object))
    lowest = pd.Series(codes).groupby(patients, sort=False).agg(["min", "max"])
    return lowest.index[lowest["min"] != lowest["max"]].to_numpy()


def class_names(labels: "pd.Series") -> "pd.Series":
    """Return labels as text that does not depend on the type of their column; None if missing.

    Whole numbers have no decimal point, and text without characters is missing.
    """
    return labels.astype(object).map(id_text).astype(object)


def id_text(value: Any) -> str | None:
    """Return an id or a label as text without spaces around it; None if it is missing.

    A whole number has no decimal point, which pandas adds to a column with a missing value.
    """
    import pandas as pd

    if np.ndim(value) == 0 and pd.isna(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return unicodedata.normalize("NFC", str(value)).strip() or None
