"""Read a cohort: join slides, clinical data and feature files, and list all that does not match."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stp.data.feature_files import FeatureFile
from stp.io._cohort_files import find_paths, open_slides
from stp.io._cohort_table import read_table
from stp.tables import keys
from stp.tables.cohort_join import (
    Mismatches,
    compare_patients,
    join_tables,
    name_columns,
    select_rows,
)
from stp.tables.columns import convert_columns
from stp.tables.table import record

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

RESERVED = (keys.PATIENT, keys.SLIDE_ID, keys.PATH, keys.N_TILES)


@dataclass(frozen=True)
class CohortJoin:
    """Tables and files of a cohort that were joined, and all that does not match.

    Parameters
    ----------
    table
        The slides that are in the cohort, with the columns of their patients.
    paths
        Absolute path of the feature file of each slide that has one.
    files
        Description of each feature file that can be read.
    mismatches
        All rows that do not match, and all contradictions.
    """

    table: "pd.DataFrame"
    paths: dict[str, Path]
    files: dict[str, FeatureFile]
    mismatches: Mismatches

    def make_obs(self) -> "pd.DataFrame":
        """Return the rows of the cohort, with types that AnnData can store.

        A slide without features has an empty path and no tiles.
        """
        slides = self.table[keys.SLIDE_ID]
        obs = self.table.set_axis(slides.to_numpy(dtype=object))
        others = [name for name in obs if name not in RESERVED]
        obs[keys.PATH] = [str(self.paths.get(slide, "")) for slide in slides]
        n_tiles = {slide: file.n_tiles for slide, file in self.files.items()}
        obs[keys.N_TILES] = [n_tiles.get(slide, 0) for slide in slides]
        obs = obs[[*RESERVED, *others]].copy()
        obs.index.name = None
        convert_columns(obs, "obs")
        return obs


def join_cohort(
    slides: "str | Path | pd.DataFrame",
    *,
    clinical: "str | Path | pd.DataFrame | None",
    slide_key: str,
    patient_key: str,
    path_key: str,
    root: str | Path | None,
    use_rep: str,
    table_key: str,
    awaited: Collection[str] = (),
) -> CohortJoin:
    """Join tables and files as `read_cohort` does, and only note what does not match.

    `awaited` are names of slides whose features are still to be made, so that they may lack.
    """
    mismatches = Mismatches()
    table = _read_slides(slides, slide_key, patient_key, path_key, mismatches)
    patients = None if clinical is None else _read_clinical(clinical, patient_key, mismatches)
    if patients is not None:
        compare_patients(table, patients, mismatches)
    folder = Path(slides).parent if isinstance(slides, str | Path) else None
    root = None if root is None else Path(root)
    paths = find_paths(table, folder, root, path_key, mismatches, awaited)
    files = open_slides(paths, use_rep, table_key, mismatches)
    if patients is None:
        joined = table[~table[keys.SLIDE_ID].isin(mismatches.slides_left_out)]
    else:
        joined = join_tables(table, patients, mismatches)
    return CohortJoin(joined, paths, files, mismatches)


def read_cohort(
    slides: "str | Path | pd.DataFrame",
    *,
    clinical: "str | Path | pd.DataFrame | None" = None,
    slide_key: str = "slide",
    patient_key: str = "patient",
    path_key: str = "path",
    root: str | Path | None = None,
    use_rep: str = keys.IMAGES,
    table_key: str = "table",
    missing: Literal["raise", "drop"] = "raise",
) -> "AnnData":
    """Join a table of slides, a clinical table and feature files to a cohort: a row per slide.

    Nothing is joined by guessing, and no row is lost without a word: one error lists all that does
    not match. The features stay in their files.

    Parameters
    ----------
    slides
        Table with a row per slide: a DataFrame, or a csv, tsv, parquet or xlsx file. Ids in files
        are read as text. Rows of a patient may be anywhere in it.
    clinical
        Table with a row per patient, whose columns are added to `obs`.
    slide_key
        Column of `slides` with ids of slides, which may have subfolders and a suffix.
    patient_key
        Column of both tables with ids of patients. It may be `slide_key` if each slide is a bag.
    path_key
        Column of `slides` with paths of feature files. They are relative to `root`, or else to the
        folder of the table. A slide without one is looked for in `root`.
    root
        Folder of the feature files. A slide has the file `<slide>.zarr`, `<slide>.h5` or
        `<slide>.pt`, in any subfolder.
    use_rep
        Name of the features in `obsm`.
    table_key
        Name of the table in a SpatialData.
    missing
        "raise" refuses tables that do not match. "drop" leaves out the rows without a partner,
        with a warning.

    Returns
    -------
    AnnData with a row per slide and without genes. `obs` has `patient`, `slide`, `path` (absolute),
    `n_tiles`, and all other columns of both tables. `uns["stp_cohort"]` has `params`; the numbers
    `n_patients`, `n_slides` and `n_tiles`; `left_out`, a table of the rows that were left out and
    why; and `features`, how they were made.

    Raises
    ------
    KeyError
        A column is missing.
    FileNotFoundError
        A table or `root` is missing.
    ImportError
        A table is an xlsx file, and openpyxl is missing.
    ValueError
        A table cannot be read, or tables and files do not match: ids are missing or repeat; a slide
        has no feature file, several, or one without tiles; a patient has no slide or no clinical
        row; rows contradict each other; or features are of several models, widths or scales.

    Examples
    --------
    >>> slides = pd.DataFrame({"patient": ["P0", "P0", "P1"], "slide": ["P0", "extra", "P1"]})
    >>> clinical = pd.DataFrame({"patient": ["P0", "P1"], "EGFR": ["mutated", "wild type"]})
    >>> cohort = stp.io.read_cohort(slides, clinical=clinical, root="features")
    >>> cohort.obs[["patient", "n_tiles", "EGFR"]]
          patient  n_tiles       EGFR
    P0         P0        6    mutated
    extra      P0        6    mutated
    P1         P1        6  wild type
    """
    import anndata

    if missing not in ("raise", "drop"):
        raise ValueError(f"missing must be 'raise' or 'drop', not {missing!r}")
    join = join_cohort(
        slides,
        clinical=clinical,
        slide_key=slide_key,
        patient_key=patient_key,
        path_key=path_key,
        root=root,
        use_rep=use_rep,
        table_key=table_key,
    )
    join.mismatches.report(missing)
    if not len(join.table):
        raise ValueError("no slide is left for the cohort; check the tables, root= and use_rep=")
    obs = join.make_obs()
    cohort = anndata.AnnData(obs=obs)
    params = {
        "slides": _source_name(slides),
        "clinical": None if clinical is None else _source_name(clinical),
        "slide_key": slide_key,
        "patient_key": patient_key,
        "path_key": path_key,
        "root": None if root is None else str(root),
        "use_rep": use_rep,
        "table_key": table_key,
        "missing": missing,
    }
    record(
        cohort,
        keys.COHORT,
        params,
        n_patients=obs[keys.PATIENT].nunique(),
        n_slides=len(obs),
        n_tiles=int(obs[keys.N_TILES].sum()),
        left_out=join.mismatches.table(),
        features=_describe([join.files[slide] for slide in obs.index], use_rep, table_key),
    )
    return cohort


def _read_slides(
    source: Any, slide_key: str, patient_key: str, path_key: str, mismatches: Mismatches
) -> "pd.DataFrame":
    """Return the slide table with our names of the key columns, one row per slide."""
    table = read_table(source, "slides", (slide_key, patient_key, path_key))
    names = {keys.PATIENT: patient_key, keys.SLIDE_ID: slide_key}
    if path_key in table or path_key != keys.PATH:
        names[keys.PATH] = path_key
    if not len(table):
        raise ValueError("the table of slides= has no row")
    slides = select_rows(
        name_columns(table, names, RESERVED, "slides"), keys.SLIDE_ID, "slides", mismatches
    )
    columns = slides[[keys.SLIDE_ID, keys.PATIENT]]
    mismatches.rows_of_slides = {
        slide: (row, patient) for row, slide, patient in columns.itertuples()
    }
    return slides


def _read_clinical(source: Any, patient_key: str, mismatches: Mismatches) -> "pd.DataFrame":
    """Return the clinical table with our name of the patient column, one row per patient."""
    table = read_table(source, "clinical", (patient_key,))
    # A clinical table may name slides and paths, too; the columns of both tables are compared.
    named = name_columns(
        table, {keys.PATIENT: patient_key}, (keys.PATIENT, keys.N_TILES), "clinical"
    )
    return select_rows(named, keys.PATIENT, "clinical", mismatches)


def _describe(files: list[FeatureFile], use_rep: str, table_key: str) -> dict[str, Any]:
    """Return how the features of all slides were made."""
    first = files[0]
    return {
        "model": first.model,
        "writer": first.writer,
        "tile_um": first.tile_um,
        "um_per_px": first.um_per_px,
        "width": first.width,
        "dtype": np.result_type(*(file.dtype for file in files)).name,
        "use_rep": use_rep,
        "table_key": table_key,
    }


def _source_name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else "DataFrame"
