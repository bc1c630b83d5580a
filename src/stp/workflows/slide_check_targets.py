"""Whether labels of a cohort can be learned, and whether models can predict it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stp._log import count, preview
from stp._text import text_of
from stp.io._read_cohort import CohortJoin
from stp.models.slide_config import SlideFeatures
from stp.tables import keys
from stp.tables.cohort import class_names, patient_labels
from stp.tl._slide_models import find_unseen, open_slide_models, require_fit
from stp.train.cross_validation import name_classes, plan_folds, read_folds
from stp.train.slide_cohort import SlideCohort
from stp.train.slides import check_share
from stp.train.targets import Target
from stp.workflows.slide_config import Study
from stp.workflows.slide_steps import divide

if TYPE_CHECKING:
    from anndata import AnnData

Result = TypeVar("Result")

N_NAMES = 20  # that one line lists
ERRORS = (ValueError, KeyError, TypeError, OSError, ImportError)


@dataclass(frozen=True)
class Finding:
    """A fault, or what a user must know.

    Parameters
    ----------
    part
        The table of the file that it is about, such as "cohort".
    text
        One line that names the row or the value, and the remedy.
    is_fault
        Whether work would fail.
    """

    part: str
    text: str
    is_fault: bool = True


def check_models(cohort: "AnnData", join: CohortJoin, models: Path) -> list[Finding]:
    """Return why models cannot predict a cohort.

    Parameters
    ----------
    cohort
        Table with a row per slide.
    join
        The files of its features.
    models
        Folder of slide models.
    """
    findings: list[Finding] = []
    try:
        slide_models = open_slide_models(models)
    except ERRORS as error:
        return [Finding("predict", text_of(error))]
    files = [join.files[slide] for slide in cohort.obs_names if slide in join.files]
    if files:
        model = files[0].model or {}
        features = SlideFeatures(
            width=files[0].width,
            model_name=str(model.get("name", "")),
            model_class=str(model.get("class", "")),
            model_digest=model.get("digest"),
            tile_um=files[0].tile_um,
            um_per_px=files[0].um_per_px,
        )
        _try("predict", lambda: require_fit(slide_models, features), findings)
    patients = list(dict.fromkeys(cohort.obs[keys.PATIENT].astype(str)))
    _try("predict", lambda: find_unseen(slide_models, patients), findings)
    return findings


def check_targets(study: Study, cohort: "AnnData") -> list[Finding]:
    """Return why models cannot be trained on the labels of a cohort."""
    if not study.target:
        text = "there is no table [[target]], so nothing can be learned; add one"
        return [Finding("target", text)]
    findings: list[Finding] = []
    for target in study.targets:
        n_before = len(findings)
        _try("target", partial(_describe, cohort, target), findings)
        if len(findings) == n_before:
            findings += _list_unlabeled(cohort, target)
    _try("fit", lambda: check_share(study.fit.validation_share), findings)
    if any(finding.is_fault for finding in findings):
        return findings  # folds and splits depend on the labels
    fold_key = _try("cross_validation", lambda: divide(study, cohort), findings)
    if fold_key is None:
        return findings
    if study.cross_validation.fold_key is not None:
        findings += _check_sites(study, cohort, fold_key)
    if any(finding.is_fault for finding in findings):
        return findings
    _try("cross_validation", lambda: _plan(study, cohort, fold_key), findings)
    return findings


def _try(part: str, call: Callable[[], Result], findings: list[Finding]) -> Result | None:
    """Return the result of a call, or None after its error; its warnings become notes."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            result = call()
        except ERRORS as error:
            result = None
            findings.append(Finding(part, text_of(error)))
    findings += [
        Finding(part, " ".join(str(note.message).split()), is_fault=False)
        for note in notes
        if note.category is UserWarning
    ]
    return result


def _describe(cohort: "AnnData", target: Target) -> None:
    """Raise an error if a target cannot be learned from all patients."""
    everyone = np.ones(cohort.obs[keys.PATIENT].nunique(), bool)
    target.read(cohort, target.describe(cohort, everyone))


def _list_unlabeled(cohort: "AnnData", target: Target) -> list[Finding]:
    """Return a note of the patients without a label."""
    lacks = np.any([patient_labels(cohort, name).isna() for name in target.columns], axis=0)
    patients = patient_labels(cohort, target.column).index[lacks]
    if not len(patients):
        return []
    text = (
        f"{count(len(patients), 'patient')} without a label in {' or '.join(target.columns)} "
        f"train nothing: {preview(patients, N_NAMES)}; write a label, or leave it so"
    )
    return [Finding("target", text, is_fault=False)]


def _check_sites(study: Study, cohort: "AnnData", fold_key: str) -> list[Finding]:
    """Return the hospitals whose patients are in several of the folds that a column has."""
    site_key = study.cross_validation.site_key
    findings: list[Finding] = []
    folds = _try("cross_validation", lambda: read_folds(cohort, fold_key), findings)
    if folds is None or site_key is None:
        return findings
    if site_key not in cohort.obs:
        return [*findings, Finding("cross_validation", f"there is no column {site_key!r} of sites")]
    sites = class_names(patient_labels(cohort, site_key))
    for site in sorted(set(sites.dropna())):
        is_here = (sites == site).to_numpy() & (folds >= 0)
        numbers, sizes = np.unique(folds[is_here], return_counts=True)
        if len(numbers) > 1:
            largest = numbers[sizes.argmax()]
            others = is_here & (folds != largest)
            pairs = zip(sites.index[others], folds[others], strict=True)
            listed = preview((f"{patient} in fold {fold}" for patient, fold in pairs), N_NAMES)
            text = (
                f"patients of {site_key} {site!r} are in {len(numbers)} folds, most of them in "
                f"fold {largest}: {listed}; move them there, or leave out fold_key or site_key"
            )
            findings.append(Finding("cross_validation", text))
    return findings


def _plan(study: Study, cohort: "AnnData", fold_key: str) -> None:
    """Raise an error if a fold cannot be trained."""
    patients: Sequence[str] = list(dict.fromkeys(cohort.obs[keys.PATIENT].astype(str)))
    # Labels alone decide, so it does not matter that the features are not named.
    slides = SlideCohort(cohort, [], list(patients), SlideFeatures(width=1))
    targets = name_classes(slides, study.targets)
    folds = read_folds(cohort, fold_key)
    share = study.fit.validation_share
    plan_folds(slides, targets, folds, share, study.fit.config.seed)
