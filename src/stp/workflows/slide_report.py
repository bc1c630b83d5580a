"""One HTML page with the scores of all cohorts of a study, side by side."""

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from stp._log import count, preview
from stp.tables import keys
from stp.workflows.page import make_fact, make_table, write_page
from stp.workflows.slide_config import Study
from stp.workflows.slide_report_tables import ScoredCohort, summarize, tabulate, tabulate_folds

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
    sections = [("Summary", summarize(with_scores, targets, level))]
    for target in targets:
        content = tabulate(with_scores, target, level) + _show(figures, target)
        sections.append((target, content + tabulate_folds(with_scores, target)))
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


def _show(figures: list[Figure], target: str) -> str:
    """Return the figures of a target: those of several cohorts side by side, kind by kind."""
    of_target = [figure for figure in figures if figure.target == target]
    rows = [[_draw_card(figure) for figure in of_target if figure.name == name] for name in FIGURES]
    if len({figure.cohort for figure in of_target}) == 1:
        rows = [[card for row in rows for card in row]]
    return "".join(f'<div class="cards curves">{"".join(row)}</div>' for row in rows if row)


def _draw_card(figure: Figure) -> str:
    data = base64.b64encode(figure.svg.encode()).decode()
    title = FIGURES[figure.name]
    text = escape(f"{title} of {figure.target} in {figure.cohort}", quote=True)
    return (
        f'<figure class="card"><img alt="{text}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(title)}, {escape(figure.cohort)}</figcaption></figure>"
    )


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
.curves { grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 390px));
margin: 1rem 0; align-items: start; }
.curves img { width: 100%; height: 25rem; object-fit: contain; display: block; background: #fff;
border-radius: 6px; padding: .5rem; }
small { color: var(--quiet); } li { max-width: 46rem; }
.who { display: none; color: var(--quiet); }
@media (max-width: 600px) { .who { display: inline; } .curves img { height: auto; } }
"""
