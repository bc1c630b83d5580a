"""The steps of a study that compute: tile, cross-validate, fit and predict."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp import get, io, tl, train
from stp._atomic import write_atomically, write_text_atomically
from stp._log import count, logger
from stp._text import readable
from stp._version import __version__
from stp.data.collection_file import csv_text
from stp.models.saved.description import CONFIG
from stp.models.slide import SlideModel
from stp.tables import keys
from stp.tl._slide_models import open_slide_models
from stp.train.cross_validation import FOLDS, MODELS, read_folds
from stp.train.targets import Target
from stp.workflows.slide_cohorts import CohortSource, add_folds, own_cohort
from stp.workflows.slide_config import Study
from stp.workflows.slide_paths import find_encoder, find_slides

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

CROSS_VALIDATION = "cross_validation"  # folders of the results
MODEL = "model"
PREDICTIONS = "predictions"
INTERNAL = "cross-validation"  # name of the predictions of a study's own patients


def tile(study: Study) -> "pd.DataFrame":
    """Lay tiles on all slides and embed them; return a row per slide with its status."""
    table = study.slides
    if table is None:
        raise ValueError(f"{study.file} has no table [slides], so there is nothing to tile")
    paths = find_slides(study, table)
    out = study.output / "tiles"
    logger.info(f"tile: {count(len(paths), 'slide')} into {out}")
    rows = io.tile_slides(
        paths,
        out,
        model=find_encoder(study, table.model),
        tile_um=table.tile_um,
        tissue=None if table.tissue is None else study.path(table.tissue),
        tissue_class=table.tissue_class,
        um_per_px=table.um_per_px,
        min_tissue=table.min_tissue,
        batch_size=table.batch_size,
        device=table.device,
        precision=table.precision,
    )
    counts = rows["status"].value_counts()
    logger.info("tile: " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    return rows


def cross_validate(study: Study) -> None:
    """Train a model for each fold; folds that are finished are skipped."""
    targets = _targets_of(study)
    cohort = own_cohort(study).read()
    fold_key = divide(study, cohort)
    out = study.output / CROSS_VALIDATION
    n_folds = len(set(read_folds(cohort, fold_key)) - {-1})
    n_patients = cohort.obs[keys.PATIENT].nunique()
    logger.info(f"cross-validate: {n_folds} folds of {count(n_patients, 'patient')} into {out}")
    train.cross_validate_slides(
        cohort,
        out,
        targets=targets,
        fold_key=fold_key,
        config=study.fit.config,
        validation_share=study.fit.validation_share,
    )


def divide(study: Study, cohort: "AnnData") -> str:
    """Assign patients to folds, unless a column has them; return the column of the folds."""
    table = study.cross_validation
    if table.fold_key is not None:
        return table.fold_key
    tl.assign_folds(
        cohort,
        study.label_key,
        n_folds=table.n_folds,
        site_key=table.site_key,
        seed=table.seed,
    )
    return keys.FOLD


def fit(study: Study) -> None:
    """Train a model on all patients; one that is finished is not trained again."""
    targets = _targets_of(study)
    cohort = own_cohort(study).read()
    out = study.output / MODEL
    logger.info(f"fit: {count(cohort.obs[keys.PATIENT].nunique(), 'patient')} into {out}")
    train.fit_slides(
        cohort,
        out,
        targets=targets,
        config=study.fit.config,
        validation_share=study.fit.validation_share,
    )


def _targets_of(study: Study) -> list[Target]:
    if not study.target:
        raise ValueError(f"{study.file} has no table [[target]], so there is nothing to learn")
    return study.targets


def find_models(study: Study, models: Path | None) -> Path:
    """Return the folder of slide models: by default that of the study's cross-validation.

    In the results of a study, it is that of the cross-validation, or else of the fitted model.

    Raises
    ------
    FileNotFoundError
        The study has no finished cross-validation.
    """
    if models is None:
        folder = study.output / CROSS_VALIDATION
        if not (folder / MODELS).is_file():
            raise FileNotFoundError(
                f"{folder} has no finished cross-validation; run `stp slides cross-validate "
                f"{study.file.name}` first, or give --models"
            )
        return folder
    if (models / CROSS_VALIDATION / MODELS).is_file():
        return models / CROSS_VALIDATION
    if (models / MODEL / CONFIG).is_file():
        return models / MODEL
    return models


def name_predictions(
    file: Path, name: str | None, *, table: Path | None, models: Path | None
) -> str:
    """Return the name of predictions: that of the other table or file, or of the study's own.

    Parameters
    ----------
    file
        The file of the study.
    name
        The name that the user chose, or None.
    table
        Table of another cohort; None for that of the study.
    models
        Folder of slide models; None for those of the study.

    Raises
    ------
    ValueError
        The name is no name of a file.
    """
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"--name {name!r} is no name of a file; use letters and -")
        return name
    if table is not None:
        return table.stem
    return INTERNAL if models is None else file.stem


def predict(study: Study, source: CohortSource, models: Path, name: str) -> Path:
    """Predict the patients of a cohort, unless it is done; return the file of the predictions."""
    cohort = source.read()
    slide_models = open_slide_models(models)
    file = study.output / PREDICTIONS / f"{name}.h5ad"
    n_patients = cohort.obs[keys.PATIENT].nunique()
    what = f"predict {name}: {count(n_patients, 'patient')} by {count(len(slide_models), 'model')}"
    if (models / FOLDS).is_file():
        add_folds(cohort, models / FOLDS)
    fingerprint = _fingerprint(study, cohort, slide_models)
    if file.exists() and read_record(file).get("fingerprint") == fingerprint:
        logger.info(f"{what}: {file} is finished and skipped")
        return file
    logger.info(f"{what} of {models}, into {file}")
    config = study.fit.config
    tl.predict_slides(cohort, slide_models, device=config.device, precision=config.precision)
    is_internal = bool((cohort.obs[keys.n_models(keys.SLIDES)] < len(slide_models)).any())
    record = {
        "fingerprint": fingerprint,
        "name": name,
        "is_internal": is_internal,
        "models": readable(models),
        "features": features_digest(cohort),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").unlink(missing_ok=True)  # until the others are whole
    write_atomically(file, cohort.write_h5ad)
    write_text_atomically(file.with_suffix(".csv"), csv_text(get.patients(cohort).reset_index()))
    write_text_atomically(file.with_suffix(".json"), json.dumps(record, indent=2))
    return file


def open_predictions(study: Study, name: str) -> "tuple[AnnData, dict[str, Any]]":
    """Return the predictions of a cohort, and what is recorded of them.

    Raises
    ------
    FileNotFoundError
        There are none of this name.
    """
    import anndata

    file = study.output / PREDICTIONS / f"{name}.h5ad"
    record = read_record(file)
    if not record:
        raise FileNotFoundError(
            f"there are no predictions {name!r} in {file.parent}; run `stp slides predict "
            f"{study.file.name}` first, or give --name"
        )
    return anndata.read_h5ad(file), record


def read_record(file: Path) -> dict[str, Any]:
    """Return what is recorded of predictions; nothing if they are not whole."""
    path = file.with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def entry_stamp(path: Path, table_key: str, *parts: str) -> list[int]:
    """Return size and time of what an entry of a table depends on, or of a file or folder.

    Other entries of a store may change without it.
    """
    entry = path.joinpath("tables", table_key, *parts)
    names = ("zarr.json", ".zarray", ".zgroup")
    files = [folder / name for folder in (entry, path) for name in names]
    status = next((file for file in files if file.is_file()), path).stat()
    return [status.st_size, status.st_mtime_ns]


def features_digest(cohort: "AnnData") -> str:
    """Return a digest of the files of the features of a cohort."""
    features = cohort.uns[keys.COHORT]["features"]
    entry = ("obsm", str(features["use_rep"]))
    paths = [Path(path) for path in cohort.obs[keys.PATH].astype(str)]
    return digest_of([entry_stamp(path, str(features["table_key"]), *entry) for path in paths])


def digest_of(inputs: Any) -> str:
    """Return a digest of plain values; names may be in any order, as stores list them."""
    text = json.dumps(inputs, default=str, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _fingerprint(study: Study, cohort: "AnnData", models: list[SlideModel]) -> str:
    """Return a digest of all that predictions depend on: tables, features and models."""
    inputs = {
        "version": __version__,
        "table": cohort.obs.to_csv(encoding="utf-8"),
        "features": cohort.uns[keys.COHORT]["features"],
        "files": features_digest(cohort),
        "models": [(model.digest, asdict(model.config)["targets"]) for model in models],
        "precision": study.fit.config.precision,
    }
    return digest_of(inputs)
