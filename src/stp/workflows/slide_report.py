"""One HTML page with the scores of all cohorts of a study, side by side."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._log import count, preview
from stp.tables import keys
from stp.workflows.page import make_fact, make_table, write_page
from stp.workflows.slide_config import Study

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
FIGURES = {
    "roc": "ROC curve",
    "precision_recall": "precision and recall",
    "calibration": "calibration",
    "confusion": "confusion matrix",
    "kaplan_meier": "survival by risk",
}


UNITS = {"tile_um": "µm a tile", "um_per_px": "µm per pixel"}


class Figure(NamedTuple):
    """A figure of a target of a cohort."""

    cohort: str
    target: str
    name: str
    file: str
    svg: str


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


def write_report(
    path: Path, study: Study, scored: list[ScoredCohort], figures: list[Figure]
) -> None:
    """Write the page, which opens from file in any browser, without a network.

    Parameters
    ----------
    path
        The new HTML file. It is replaced if it is there.
    study
        The study.
    scored
        All cohorts, those of the cross-validation first.
    figures
        Their figures.
    """
    with_scores = [cohort for cohort in scored if cohort.has_scores]
    targets = list(dict.fromkeys(name for c in with_scores for name in c.scores["target"]))
    level = f"{100 * study.scores.level:g} %"
    sections = [("Summary", _summarize(with_scores, targets, level))]
    for target in targets:
        content = _tabulate(with_scores, target, level) + _show(figures, target)
        sections.append((target, content + _tabulate_folds(with_scores, target)))
    sections.append(("What to know", _list_notes(scored)))
    sections.append(("How it was made", _describe(study, scored)))
    body = "".join(f"<h2>{escape(title)}</h2>{content}" for title, content in sections)
    facts = make_fact(sum(cohort.n_patients for cohort in scored), "patient")
    facts += make_fact(sum(cohort.table.n_obs for cohort in scored), "slide")
    n_tiles = sum(int(cohort.table.obs[keys.N_TILES].sum()) for cohort in scored)
    facts += make_fact(n_tiles, "tile") + make_fact(len(scored), "cohort")
    name = study.output.name
    write_page(
        path,
        title=f"Slides: {name}",
        heading=f"Patients predicted from slides: {name}",
        facts=facts,
        body=body,
        style=STYLE,
    )


def _summarize(scored: list[ScoredCohort], targets: list[str], level: str) -> str:
    """Return the main score of each target in each cohort."""
    rows = []
    for target in targets:
        cells = []
        for cohort in scored:
            table = cohort.scores
            is_main = (table["target"] == target) & table["score"].isin(MAIN)
            cells.append(_cell(table[is_main].iloc[0], named=True) if is_main.any() else "")
        rows.append([escape(target), *cells])
    table = make_table(["target", *(cohort.name for cohort in scored)], rows, layout="stacked")
    return (
        f"<p>Each number stands with its {level} interval, from resampling patients. There is none "
        f"with fewer than 10 positives, negatives or events.</p>{table}"
    )


def _cell(row: "pd.Series", *, named: bool = False) -> str:
    """Return the value of a score with its interval and numbers as HTML."""
    value = float(row["value"])
    text = _number(value)
    if np.isfinite(row["low"]):
        text += f" <small>({_number(row['low'])} to {_number(row['high'])})</small>"
    if not named:
        return text
    numbers = [count(row["n_patients"], "patient")]
    if row["n_positives"] >= 0:
        numbers.append(f"{int(row['n_positives']):,} {escape(str(row['class']))}")
    if row["n_events"] >= 0:
        numbers.append(count(row["n_events"], "event"))
    return f"{_title(str(row['score']))} <b>{text}</b><br><small>{', '.join(numbers)}</small>"


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


def _tabulate(scored: list[ScoredCohort], target: str, level: str) -> str:
    """Return all scores of a target, with a column for each cohort."""
    columns = ["score", "class", "decision"]
    tables = [c.scores[c.scores["target"] == target].set_index(columns) for c in scored]
    labels = list(dict.fromkeys(label for table in tables for label in table.index))
    rows = []
    for label in labels:
        score, class_name, decision = map(str, label)
        name = _title(score)
        details = [text for text in (class_name, _decision(decision)) if text]
        if details:
            name += f" <small>{escape(', '.join(details))}</small>"
        cells = [_cell(table.loc[label]) if label in table.index else "" for table in tables]
        notes = dict.fromkeys(str(t.loc[label]["note"]) for t in tables if label in t.index)
        rows.append([name, *cells, escape("; ".join(note for note in notes if note))])
    numbers = [_patients_cell(cohort, target) for cohort in scored]
    rows.insert(0, ["patients", *numbers, ""])
    header = ["score", *(cohort.name for cohort in scored), "note"]
    return make_table(header, rows, layout="stacked")


def _decision(decision: str) -> str:
    return {"threshold": "at the threshold", "0.5": "at 0.5"}.get(decision, decision)


def _patients_cell(cohort: ScoredCohort, target: str) -> str:
    """Return how many patients are scored, and how many are not."""
    numbers = cohort.table.uns[keys.SLIDE_SCORES]["patients"].get(target)
    if numbers is None:
        return ""
    rows = cohort.scores[cohort.scores["target"] == target]
    row = rows.iloc[0]
    parts = [count(numbers["n_scored"], "patient")]
    if row["n_positives"] >= 0:
        parts.append(f"{int(row['n_positives']):,} {row['class']}")
    if row["n_events"] >= 0:
        parts.append(count(row["n_events"], "event"))
    if numbers["n_without_label"]:
        parts.append(f"{int(numbers['n_without_label']):,} without a label")
    if numbers["n_without_prediction"]:
        parts.append(f"{int(numbers['n_without_prediction']):,} without a prediction")
    return escape(", ".join(parts))


def _show(figures: list[Figure], target: str) -> str:
    """Return the figures of a target, those of one kind side by side."""
    cards = []
    for name, title in FIGURES.items():
        for figure in figures:
            if (figure.target, figure.name) == (target, name):
                data = base64.b64encode(figure.svg.encode()).decode()
                text = escape(f"{title} of {target} in {figure.cohort}", quote=True)
                cards.append(
                    f'<figure class="card"><img alt="{text}" '
                    f'src="data:image/svg+xml;base64,{data}"><figcaption>{escape(title)}, '
                    f"{escape(figure.cohort)}</figcaption></figure>"
                )
    return f'<div class="cards curves">{"".join(cards)}</div>'


def _tabulate_folds(scored: list[ScoredCohort], target: str) -> str:
    """Return the main score of a target in each fold."""
    lines = []
    for cohort in scored:
        folds = cohort.table.uns[keys.SLIDE_SCORES]["folds"]
        is_main = (folds["target"] == target) & folds["score"].isin(MAIN)
        chosen = folds[is_main]
        if len(set(chosen["fold"])) > 1:
            rows = [
                [escape(str(row.fold)), _number(row.value), f"{row.n_patients:,}"]
                for row in chosen.itertuples()
            ]
            header = ["fold", _title(str(chosen["score"].iloc[0])), "patients"]
            lines.append(
                f"<details><summary>Folds of {escape(cohort.name)}</summary>"
                f"{make_table(header, rows, numeric=[1, 2])}</details>"
            )
    return "".join(lines)


def _list_notes(scored: list[ScoredCohort]) -> str:
    """Return what a reader must know of each cohort, from the checks of its predictions."""
    lines = []
    for cohort in scored:
        notes = [*_notes_of(cohort)] or ["All checks passed."]
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        lines.append(f"<h3>{escape(cohort.name)}</h3><ul>{items}</ul>")
    return "".join(lines)


def _notes_of(cohort: ScoredCohort) -> Iterator[str]:
    checks: dict[str, Any] = cohort.table.uns[keys.SLIDES]["checks"]
    if cohort.reason:
        yield f"Not scored: {cohort.reason}"
    if checks["n_far_slides"]:
        yield (
            f"{checks['n_far_slides']:,} of {count(cohort.table.n_obs, 'slide')} are far from the "
            "training slides, so their predictions say little."
        )
    if checks["n_bags_out_of_range"]:
        yield (
            f"{count(checks['n_bags_out_of_range'], 'patient')} with far more or fewer tiles than "
            "those of the training."
        )
    for target, labels in checks["unknown_labels"].items():
        yield f"{target} has labels that the models do not know: {preview(labels, 10)}."
    if not checks["are_patients_checked"]:
        yield "Models have no record of their patients, so nothing shows that these are new."
    features = cohort.table.uns[keys.COHORT]["features"]
    unknown = [name for name in ("tile_um", "um_per_px") if features.get(name) is None]
    if unknown:
        yield f"The {' and '.join(unknown)} of the tiles is not recorded, so it is not compared."
    left_out = cohort.table.uns[keys.COHORT]["left_out"]
    for reason, rows in left_out.groupby("reason", sort=False) if len(left_out) else ():
        names = [str(slide or patient) for slide, patient in rows[["slide", "patient"]].to_numpy()]
        yield f"Left out, {reason}: {preview(names, 10)}."


def _describe(study: Study, scored: list[ScoredCohort]) -> str:
    """Return where models and features come from."""
    rows = []
    for cohort in scored:
        features = cohort.table.uns[keys.COHORT]["features"]
        model = features.get("model") or {}
        models = cohort.table.uns[keys.SLIDES]["models"]
        pairs = zip(models["names"], models["digests"], strict=True)
        names = ", ".join(f"{name} ({digest[:12]})" for name, digest in pairs)
        tiles = [f"{features[n]:g} {unit}" for n, unit in UNITS.items() if features.get(n)]
        source = f"{model.get('name', 'unknown')}, {features['width']} values a tile"
        text = "; ".join([source, *tiles])
        rows.append([escape(cohort.name), escape(cohort.models), escape(names), escape(text)])
    header = ["cohort", "folder of the models", "models", "features"]
    table = make_table(header, rows, layout="stacked")
    seed = study.scores.seed
    return f"{table}<p>{study.scores.n_resamples:,} resamples, seed {seed}.</p>"


STYLE = """
.curves { grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr));
margin: 1rem 0; align-items: start; }
.curves img { width: 100%; max-height: 34rem; display: block; background: #fff;
border-radius: 6px; padding: .5rem; }
small { color: var(--quiet); } li { max-width: 46rem; }
"""
