"""Score all predictions of a study, and write tables, figures and a report."""

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import pl, tl
from stp._atomic import write_text_atomically
from stp._log import count, logger
from stp._progress import track
from stp._text import readable
from stp._version import __version__
from stp.data.collection_file import csv_text
from stp.tables import keys
from stp.workflows.slide_config import Study
from stp.workflows.slide_report import Figure, write_report
from stp.workflows.slide_report_tables import ScoredCohort
from stp.workflows.slide_steps import INTERNAL, PREDICTIONS, read_record

if TYPE_CHECKING:
    import pandas as pd

SCORES = "scores"  # folder of the results
FILE = "scores.json"
CURVES: dict[str, Callable[..., Any]] = {
    "roc": pl.roc,
    "precision_recall": pl.precision_recall,
    "calibration": pl.calibration,
    "confusion": pl.confusion,
    "kaplan_meier": pl.kaplan_meier,
}


@dataclass(frozen=True)
class Predictions:
    """Predictions of a cohort that a study has.

    Parameters
    ----------
    name
        Name of the cohort in tables and figures.
    file
        The predictions.
    record
        What is recorded of them.
    """

    name: str
    file: Path
    record: dict[str, Any]


def score(study: Study) -> Path:
    """Score all predictions, unless it is done, and return the file `scores.json`.

    Predictions of other cohorts stand side by side with those of the cross-validation that made
    their models, which may be that of another study.
    """
    cohorts = find_predictions(study)
    folder = study.output / SCORES
    file = folder / FILE
    fingerprint = _fingerprint(study, cohorts)
    names = ", ".join(cohort.name for cohort in cohorts)
    if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["inputs"] == fingerprint:
        logger.info(f"score {names}: {folder} is finished and skipped")
        return file
    logger.info(f"score {names}, into {folder}")
    scored = [
        _score_cohort(study, cohort) for cohort in track(cohorts, "score predictions", "cohort")
    ]
    if not any(cohort.has_scores for cohort in scored):
        raise ValueError(f"nothing can be scored: {scored[0].reason}")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # until all files are whole
    figures = _draw_figures(scored)
    for old in (folder / "figures").glob("*.svg"):
        old.unlink()
    for figure in figures:
        write_text_atomically(folder / "figures" / figure.file, figure.svg)
    write_text_atomically(folder / "scores.csv", csv_text(_join_scores(scored)))
    write_report(folder / "report.html", study, scored, figures)
    write_text_atomically(
        file, json.dumps(_describe(scored, fingerprint), indent=2, ensure_ascii=False)
    )
    n_scored = sum(cohort.has_scores for cohort in scored)
    logger.info(
        f"{count(n_scored, 'cohort')} scored; {folder / 'report.html'} shows all, open it in a "
        "browser"
    )
    return file


def find_predictions(study: Study) -> list[Predictions]:
    """Return all predictions of a study, those of the cross-validation first.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    own = []
    for file in sorted((study.output / PREDICTIONS).glob("*.h5ad")):
        record = read_record(file)
        if record:
            own.append(Predictions(str(record["name"]), file, record))
    if not own:
        raise FileNotFoundError(
            f"{study.output / PREDICTIONS} has no predictions; run `stp slides predict "
            f"{study.file.name}` first"
        )
    present = {cohort.file.resolve() for cohort in own}
    others: dict[Path, Predictions] = {}
    for cohort in own:
        file = Path(cohort.record["models"]).parent / PREDICTIONS / f"{INTERNAL}.h5ad"
        record = read_record(file)
        is_new = record and file.resolve() not in present
        if is_new and record["models"] == cohort.record["models"]:
            name = f"{INTERNAL} of {file.parents[1].name}"
            others[file.resolve()] = Predictions(name, file, record)
    cohorts = [*others.values(), *own]
    return sorted(cohorts, key=lambda cohort: not cohort.record["is_internal"])


def _fingerprint(study: Study, cohorts: list[Predictions]) -> str:
    """Return a digest of all that scores depend on."""
    table = study.scores
    inputs = {
        "version": __version__,
        "cohorts": [[cohort.name, cohort.record["fingerprint"]] for cohort in cohorts],
        "scores": [table.n_resamples, table.level, table.seed],
    }
    return hashlib.sha256(json.dumps(inputs).encode("utf-8", "replace")).hexdigest()


def _score_cohort(study: Study, predictions: Predictions) -> ScoredCohort:
    """Return a cohort with its scores, or with the reason why it has none."""
    import anndata

    cohort = anndata.read_h5ad(predictions.file)
    table = study.scores
    reason = ""
    try:
        tl.score_slides(cohort, n_resamples=table.n_resamples, level=table.level, seed=table.seed)
    except (KeyError, ValueError) as error:
        if predictions.record["is_internal"]:
            raise
        reason = str(error.args[0])
        logger.info(f"{predictions.name} is not scored: {reason}")
    models = readable(predictions.record["models"])
    return ScoredCohort(
        predictions.name, cohort, bool(predictions.record["is_internal"]), models, reason
    )


def _join_scores(scored: list[ScoredCohort]) -> "pd.DataFrame":
    """Return the scores of all cohorts as one table."""
    import pandas as pd

    tables = []
    for cohort in scored:
        if cohort.has_scores:
            table = cohort.scores.reset_index(drop=True)
            table.insert(0, "cohort", cohort.name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _draw_figures(scored: list[ScoredCohort]) -> list[Figure]:
    """Return the curves of each target of each cohort as SVG."""
    figures: list[Figure] = []
    for cohort in scored:
        if not cohort.has_scores:
            continue
        result = cohort.table.uns[keys.SLIDE_SCORES]
        for target, curves in result["curves"].items():
            # A curve has no rows if a class is missing.
            names = [name for name in CURVES if name in curves and len(curves[name])]
            if target in result["confusion"]:
                names.append("confusion")
            for name in names:
                stem = "-".join(_file_name(part) for part in (cohort.name, target, name))
                taken = {figure.file for figure in figures}
                while f"{stem}.svg" in taken:
                    stem += "-2"
                svg = _draw(cohort, target, name)
                figures.append(Figure(cohort.name, target, name, f"{stem}.svg", svg))
    return figures


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text).strip("._")


def _draw(cohort: ScoredCohort, target: str, name: str) -> str:
    """Return a figure as SVG, the same for the same scores."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "stp"}):
        figure = CURVES[name](
            cohort.table,
            key=keys.SLIDE_SCORES,
            target=target,
            title=f"{target}: {cohort.name}",
            show=False,
            return_fig=True,
        )
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)
    return file.getvalue()


def _describe(scored: list[ScoredCohort], fingerprint: str) -> dict[str, Any]:
    """Return scores, folds, numbers of patients and checks as plain values."""
    cohorts = []
    for cohort in scored:
        entry: dict[str, Any] = {
            "name": cohort.name,
            "is_internal": cohort.is_internal,
            "models": cohort.models,
            "checks": as_plain(cohort.table.uns[keys.SLIDES]["checks"]),
        }
        if cohort.has_scores:
            result = cohort.table.uns[keys.SLIDE_SCORES]
            entry["scores"] = as_plain(result["scores"].to_dict("records"))
            entry["folds"] = as_plain(result["folds"].to_dict("records"))
            entry["patients"] = as_plain(result["patients"])
        else:
            entry["not_scored"] = cohort.reason
        cohorts.append(entry)
    return {"version": __version__, "inputs": fingerprint, "cohorts": cohorts}


def as_plain(value: Any) -> Any:
    """Return a value as JSON has it: a number that is not defined is null."""
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
