"""The cohorts of a study: its own, and those of other hospitals."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._log import logger
from stp.io._cohort_table import read_table
from stp.io._read_cohort import CohortJoin, join_cohort, read_cohort
from stp.tables import keys
from stp.workflows.slide_config import Study

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@dataclass(frozen=True)
class CohortSource:
    """The tables and features of a cohort.

    Parameters
    ----------
    study
        The study, which says how columns are named.
    slides
        Table with a row per slide, or its path.
    clinical
        Path of the table with a row per patient; None if `slides` has the labels.
    root
        Folder of the features; None if `slides` has their paths.
    slides_file
        File that has the rows of `slides`.
    """

    study: Study
    slides: "Path | pd.DataFrame"
    clinical: Path | None
    root: Path | None
    slides_file: Path

    def read(self) -> "AnnData":
        """Return the cohort; see `stp.io.read_cohort`."""
        table = self.study.cohort
        return read_cohort(
            self.slides,
            clinical=self.clinical,
            slide_key=table.slide_key,
            patient_key=table.patient_key,
            path_key=table.path_key,
            root=self.root,
            use_rep=table.use_rep,
            table_key=table.table_key,
            missing="drop" if table.missing == "drop" else "raise",
        )

    def join(self, awaited: Collection[str]) -> CohortJoin:
        """Join the cohort, and only note what does not match.

        `awaited` are names of slides whose features are still to be made.
        """
        table = self.study.cohort
        return join_cohort(
            self.slides,
            clinical=self.clinical,
            slide_key=table.slide_key,
            patient_key=table.patient_key,
            path_key=table.path_key,
            root=self.root,
            use_rep=table.use_rep,
            table_key=table.table_key,
            awaited=awaited,
        )


def own_cohort(study: Study) -> CohortSource:
    """Return the cohort that the file of a study names."""
    table = study.cohort
    clinical = None if table.clinical is None else study.path(table.clinical)
    slides = study.path(table.slides)
    return CohortSource(study, slides, clinical, study.root, slides)


def other_cohort(
    study: Study, *, slides: Path | None, clinical: Path | None, root: Path | None
) -> CohortSource:
    """Return a cohort whose tables or features replace those of a study.

    A clinical table without a table of slides has the slides itself, or else chooses those of its
    patients from the slides of the study.

    Parameters
    ----------
    study
        The study, which says how columns are named.
    slides
        Table with a row per slide; None for that of `clinical`, or of the study.
    clinical
        Table with a row per patient; None if `slides` has the labels.
    root
        Folder of the features; None for that of the study.
    """
    own = own_cohort(study)
    root = own.root if root is None else root
    if slides is not None:
        return CohortSource(study, slides, clinical, root, slides)
    if clinical is None:
        return CohortSource(study, own.slides, own.clinical, root, own.slides_file)
    table = study.cohort
    patients = read_table(clinical, "clinical", (table.slide_key, table.patient_key))
    if table.slide_key in patients:
        return CohortSource(study, clinical, None, root, clinical)
    return CohortSource(study, _select_slides(own, patients, root), clinical, root, own.slides_file)


def _select_slides(own: CohortSource, patients: "pd.DataFrame", root: Path | None) -> Any:
    """Return the rows of the slides of a study that are of these patients."""
    table = own.study.cohort
    ids = (table.slide_key, table.patient_key, table.path_key)
    slides = read_table(own.slides_file, "slides", ids)
    for name, frame in (("clinical", patients), ("slides", slides)):
        if table.patient_key not in frame:
            raise KeyError(f"the table of {name}= has no column {table.patient_key!r}")
    of_patients = slides[slides[table.patient_key].isin(patients[table.patient_key])].copy()
    if root is None and table.path_key in of_patients:
        # Paths of a file are relative to its folder, and a table in memory has none.
        folder = own.slides_file.parent
        of_patients[table.path_key] = [
            None if path is None else str(folder / path) for path in of_patients[table.path_key]
        ]
    logger.info(
        f"{len(of_patients):,} of {len(slides):,} slides in {own.slides_file} are of the patients "
        "of the clinical table"
    )
    return of_patients


def add_folds(cohort: "AnnData", folds: Path) -> None:
    """Add the fold that tested each patient, as a cross-validation recorded it; -1 for none."""
    import pandas as pd

    sides = pd.read_csv(folds, dtype={"patient": str}, keep_default_na=False, encoding="utf-8")
    tested = sides[sides["side"] == "test"].set_index("patient")["fold"]
    patients = cohort.obs[keys.PATIENT].astype(str)
    cohort.obs[keys.FOLD] = patients.map(tested).fillna(-1).astype(int).to_numpy()
