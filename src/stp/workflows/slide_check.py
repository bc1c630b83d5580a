"""Everything that would fail in a study, found before any work."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._progress import track
from stp._text import text_of
from stp.io._cohort_files import name_of_slide
from stp.io._read_cohort import CohortJoin
from stp.io._tile_slides_checks import list_jobs, list_setting_faults, list_slide_faults
from stp.tables.cohort_join import REPEATED, LeftOut
from stp.workflows.slide_check_genes import check_genes
from stp.workflows.slide_check_targets import (
    ERRORS,
    Finding,
    check_models,
    check_targets,
)
from stp.workflows.slide_cohorts import CohortSource, other_cohort
from stp.workflows.slide_config import Study, StudyError, read_study
from stp.workflows.slide_paths import find_encoder, find_slides
from stp.workflows.slide_steps import find_models
from stp.workflows.slide_tables import SlidesTable

if TYPE_CHECKING:
    from anndata import AnnData

REMEDIES = {
    "no feature file": "extract its features, correct the row, or remove it",
    "features that cannot be read": "",  # the detail says what to do
    "no tile": "tile the slide with a lower min_tissue, or remove the row",
    "patient without clinical row": "add the patient to the clinical table, or remove the row",
    "patient without slide": "add its slides to the slide table, or remove the row",
    "no patient id": "write the patient",
    "no slide id": "write the slide",
    REPEATED: "remove the row",
}
CONTRADICTIONS = {
    "rows of": "keep one of the rows",
    "slides have several feature files": "write the path of one into the slide table",
    "several slides have one feature file": "give each slide its own file",
    "features": "extract the features of all slides with one encoder",
    "tiles": "extract features of tiles of one size",
    "patches": "extract features at one scale",
    "the column": "correct one of the tables",
}


def check_file(
    file: Path,
    *,
    slides: Path | None = None,
    clinical: Path | None = None,
    root: Path | None = None,
    models: Path | None = None,
) -> list[Finding]:
    """Return all faults and notes of the file of a study, and of another cohort if one is named.

    Parameters
    ----------
    file
        The file.
    slides, clinical, root
        Tables of another cohort and folder of its features; see `other_cohort`.
    models
        Results of a study, a cross-validation or a model that would predict the cohort; None to
        check if models can be trained on it.
    """
    try:
        study = read_study(file)
        folder = None if models is None else find_models(study, models)
        source = other_cohort(study, slides=slides, clinical=clinical, root=root)
    except StudyError as error:
        return [Finding("file", fault) for fault in error.faults]
    return check_study(study, source, folder)


def describe_findings(findings: list[Finding]) -> dict[str, Any]:
    """Return findings as plain values: `is_ready`, and each with `part`, `kind` and `text`."""
    lines = [
        {
            "part": finding.part,
            "kind": "fault" if finding.is_fault else "note",
            "text": finding.text,
        }
        for finding in findings
    ]
    return {"is_ready": all(not finding.is_fault for finding in findings), "findings": lines}


def check_study(study: Study, source: CohortSource, models: Path | None) -> list[Finding]:
    """Return all faults and notes of a study.

    Parameters
    ----------
    study
        The study.
    source
        The cohort that is checked.
    models
        Folder of slide models that would predict the cohort; None to check if models can be
        trained on it.
    """
    findings = []
    awaited: set[str] = set()
    if study.slides is not None and models is None:
        faults, awaited = _check_slides(study, study.slides)
        findings += [Finding("slides", text) for text in faults]
    try:
        join = source.join(awaited)
    except ERRORS as error:
        return [*findings, Finding("cohort", text_of(error))]
    findings += _check_rows(study, source, join)
    findings += [Finding("cohort", text) for text in _check_features(source, join)]
    findings += check_genes(study, join, models)
    if not len(join.table):
        return [*findings, Finding("cohort", "no slide is left; correct the tables or files")]
    try:
        cohort = _make_table(join)
    except ERRORS as error:
        return [*findings, Finding("cohort", text_of(error))]
    if models is not None:
        return [*findings, *check_models(cohort, join, models)]
    return [*findings, *check_targets(study, cohort)]


def _check_slides(study: Study, table: SlidesTable) -> tuple[list[str], set[str]]:
    """Return what is wrong with the slides to tile, and the names of those without a store."""
    faults = []
    try:
        find_encoder(study, table.model)
    except ValueError as error:
        faults.append(str(error))
    faults += list_setting_faults(None, table.tile_um, table.min_tissue, table.um_per_px)
    try:
        paths = find_slides(study, table)
    except ValueError as error:
        return [*faults, str(error)], set()
    tissue = None if table.tissue is None else study.path(table.tissue)
    out = study.output / "tiles"
    jobs = list_jobs(paths, out, tissue)
    faults += list_slide_faults(jobs, out, tissue)
    awaited = {name_of_slide(job.name) for job in jobs if not job.store.exists()}
    if study.root != out:
        awaited = set()  # the features are made by others
    return faults, awaited


def _check_rows(study: Study, source: CohortSource, join: CohortJoin) -> Iterator[Finding]:
    """Yield a line for each row that does not match, and for each contradiction."""
    is_dropped = study.cohort.missing == "drop"
    for item in join.mismatches.left_out:
        if item.reason in REMEDIES:
            text = _describe_row(source, item)
            yield Finding(
                "cohort", f"{text}; it is left out" if is_dropped else text, not is_dropped
            )
    for title, details in join.mismatches.contradictions.items():
        remedy = next(text for start, text in CONTRADICTIONS.items() if title.startswith(start))
        for detail in details:
            text = f"{title}: {detail}" if detail else title
            yield Finding("cohort", f"{text}; {remedy}")


def _describe_row(source: CohortSource, item: LeftOut) -> str:
    file = source.slides_file if item.table == "slides" else source.clinical
    name = file.name if file is not None else "clinical table"
    detail = f" ({item.detail})" if item.detail else ""
    parts = [f"{name}, row {item.row}, {item.label}: {item.reason}{detail}", REMEDIES[item.reason]]
    return "; ".join(part for part in parts if part)


def _check_features(source: CohortSource, join: CohortJoin) -> Iterator[str]:
    """Yield what is wrong with the values of the features, all of which are read."""
    slide_of: dict[bytes, str] = {}
    items = track(join.files.items(), "read features", "slide", total=len(join.files))
    for slide, file in items:
        row, _ = join.mismatches.rows_of_slides[slide]
        start = f"{source.slides_file.name}, row {row}, {slide}"
        try:
            digest = hashlib.sha256(np.ascontiguousarray(file.read()).data).digest()
        except (ValueError, OSError) as error:
            yield f"{start}: {text_of(error)}"
            continue
        other = slide_of.setdefault(digest, slide)
        if other != slide:
            yield f"{start}: it has the same features as {other}; leave out one of them"


def _make_table(join: CohortJoin) -> "AnnData":
    """Return the rows of a cohort as a table without features."""
    import anndata

    return anndata.AnnData(obs=join.make_obs())
