"""Tables of scores of several cohorts, side by side, as HTML."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from stp._log import count, preview
from stp.tables import keys
from stp.workflows.page import make_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
    "r2": "R²",
    "pearson": "correlation r",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "harrell_c": "concordance (Harrell)",
    "uno_c": "concordance (Uno)",
    "hazard_ratio": "hazard ratio",
    "logrank_p": "log-rank p",
}
MAIN = ("auroc", "pearson", "harrell_c")  # scores of the summary
BEFORE = "_before_temperature"


@dataclass(frozen=True)
class ScoredCohort:
    """A cohort with predictions and scores.

    Parameters
    ----------
    name
        Name of the cohort.
    table
        Table with a row per slide, its predictions, and its scores if it has any.
    is_internal
        Whether its patients are those of the cross-validation.
    models
        Folder of the models that predicted it.
    reason
        Why it has no scores; "" if it has.
    """

    name: str
    table: "AnnData"
    is_internal: bool
    models: str
    reason: str

    @property
    def has_scores(self) -> bool:
        """Whether it has scores."""
        return not self.reason

    @property
    def scores(self) -> "pd.DataFrame":
        """A row per target and score."""
        return self.table.uns[keys.SLIDE_SCORES]["scores"]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.table.obs[keys.PATIENT].nunique())


def summarize(scored: list[ScoredCohort], targets: list[str], level: str) -> str:
    """Return the main score of each target in each cohort."""
    rows = []
    for target in targets:
        cells = []
        for cohort in scored:
            table = cohort.scores
            is_main = (table["target"] == target) & table["score"].isin(MAIN)
            text = _main_cell(table[is_main].iloc[0]) if is_main.any() else ""
            cells.append(_name_cell(cohort, text))
        rows.append([escape(target), *cells])
    table = make_table(["target", *(cohort.name for cohort in scored)], rows, layout="stacked")
    return (
        f"<p>Each number stands with its {level} interval, from resampling patients. There is none "
        f"with fewer than 10 positives, negatives or events.</p>{table}"
    )


def _cell(row: "pd.Series") -> str:
    """Return the value of a score with its interval as HTML."""
    return f"{_number(float(row['value']))}{_interval(row)}"


def _main_cell(row: "pd.Series") -> str:
    """Return a score with its name, interval and numbers of patients as HTML."""
    numbers = ", ".join(_count_cases(row))
    value = _number(float(row["value"]))
    name = escape(_title(str(row["score"])))
    return f"{name} <b>{value}</b>{_interval(row)}<br><small>{escape(numbers)}</small>"


def _interval(row: "pd.Series") -> str:
    if not np.isfinite(row["low"]):
        return ""
    return f" <small>({_number(row['low'])} to {_number(row['high'])})</small>"


def _count_cases(row: "pd.Series") -> list[str]:
    """Return the numbers of patients, positives and events of a score."""
    numbers = [count(row["n_patients"], "patient")]
    if row["n_positives"] >= 0:
        numbers.append(f"{int(row['n_positives']):,} {row['class']}")
    if row["n_events"] >= 0:
        numbers.append(count(row["n_events"], "event"))
    return numbers


def _name_cell(cohort: ScoredCohort, text: str) -> str:
    """Return a cell that names its cohort on a narrow page, where columns have no heading."""
    return f'<span class="who">{escape(cohort.name)}: </span>{text}' if text else ""


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    if 0 < abs(value) < 0.001:
        return "&lt; 0.001" if value > 0 else "0.000"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _title(score: str) -> str:
    name = score.removesuffix(BEFORE)
    text = TITLES.get(name, name.replace("_", " "))
    return f"{text} before the temperature" if score.endswith(BEFORE) else text


def tabulate(scored: list[ScoredCohort], target: str, level: str) -> str:
    """Return all scores of a target, with a column for each cohort."""
    columns = ["score", "class", "decision"]
    tables = [c.scores[c.scores["target"] == target].set_index(columns) for c in scored]
    labels = list(dict.fromkeys(label for table in tables for label in table.index))
    rows = []
    for label in labels:
        score, class_name, decision = map(str, label)
        name = escape(_title(score))
        details = [text for text in (class_name, _decision(decision)) if text]
        if details:
            name += f" <small>{escape(', '.join(details))}</small>"
        cells = [
            _name_cell(cohort, _cell(table.loc[label]) if label in table.index else "")
            for cohort, table in zip(scored, tables, strict=True)
        ]
        notes = {
            cohort.name: str(table.loc[label]["note"])
            for cohort, table in zip(scored, tables, strict=True)
            if label in table.index
        }
        rows.append([name, *cells, escape(_join_notes(notes))])
    numbers = [_name_cell(cohort, _patients_cell(cohort, target)) for cohort in scored]
    rows.insert(0, ["patients", *numbers, ""])
    header = ["score", *(cohort.name for cohort in scored), "note"]
    return make_table(header, rows, layout="stacked")


def _join_notes(notes: dict[str, str]) -> str:
    """Return the notes of cohorts, each once; one that is not of all cohorts names its own."""
    cohorts_of: dict[str, list[str]] = {}
    for cohort, text in notes.items():
        for note in filter(None, text.split("; ")):
            cohorts_of.setdefault(note, []).append(cohort)
    return "; ".join(
        note if len(cohorts) == len(notes) else f"{note} ({preview(cohorts)})"
        for note, cohorts in cohorts_of.items()
    )


def _decision(decision: str) -> str:
    return {"threshold": "at the threshold", "0.5": "at 0.5"}.get(decision, decision)


def _patients_cell(cohort: ScoredCohort, target: str) -> str:
    """Return how many patients are scored, and how many are not."""
    numbers = cohort.table.uns[keys.SLIDE_SCORES]["patients"].get(target)
    if numbers is None:
        return ""
    rows = cohort.scores[cohort.scores["target"] == target]
    parts = _count_cases(rows.iloc[0])
    if numbers["n_without_label"]:
        parts.append(f"{int(numbers['n_without_label']):,} without a label")
    if numbers["n_without_prediction"]:
        parts.append(f"{int(numbers['n_without_prediction']):,} without a prediction")
    return escape(", ".join(parts))


def tabulate_folds(scored: list[ScoredCohort], target: str) -> str:
    """Return the main score of a target in each fold."""
    lines = []
    for cohort in scored:
        folds = cohort.table.uns[keys.SLIDE_SCORES]["folds"]
        is_main = (folds["target"] == target) & folds["score"].isin(MAIN)
        main_scores = folds[is_main]
        if len(set(main_scores["fold"])) > 1:
            rows = [
                [escape(str(row.fold)), _number(row.value), f"{row.n_patients:,}"]
                for row in main_scores.itertuples()
            ]
            header = ["fold", _title(str(main_scores["score"].iloc[0])), "patients"]
            lines.append(
                f"<details><summary>Folds of {escape(cohort.name)}</summary>"
                f"{make_table(header, rows, numeric=[1, 2])}</details>"
            )
    return "".join(lines)
