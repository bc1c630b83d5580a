"""One HTML page with the scores of a model, its baselines, and what was checked."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from stp._text import readable
from stp._version import __version__
from stp.workflows.evaluation import Evaluation
from stp.workflows.evaluation_options import TRAIN
from stp.workflows.evaluation_parts import METHODS, Part
from stp.workflows.page import make_fact, make_table, write_page

LOWER_IS_BETTER = ("mse",)
BEST = "The best value of a column is bold."


def write_report(evaluation: Evaluation, path: str | Path) -> None:
    """Write the page, which opens from file in any browser, without a network.

    Parameters
    ----------
    evaluation
        Scores of a model.
    path
        The new HTML file. It is replaced if it is there.
    """
    sections = [("Checks", _list_checks(evaluation))]
    sections += [(part.title, _show_part(part)) for part in evaluation.parts]
    sections += [
        ("Not evaluated", _list_lines(evaluation.missing)),
        ("Slides", _list_slides(evaluation)),
        ("How it was made", _describe(evaluation)),
    ]
    body = "".join(f"<h2>{escape(title)}</h2>{content}" for title, content in sections if content)
    scored = [table for table in evaluation.tables if table.side != TRAIN]
    n_references = len(evaluation.tables) - len(scored)
    facts = make_fact(len(scored), "scored slide")
    facts += make_fact(sum(table.n_spots for table in scored), "scored spot")
    facts += make_fact(n_references, "reference slide")
    if evaluation.leaks.found:
        facts += f'<div class="low">{make_fact(len(evaluation.leaks.found), "leak")}</div>'
    name = evaluation.model["name"]
    write_page(
        path,
        title=f"Evaluation: {name}",
        heading=f"Evaluation of {name}",
        facts=facts,
        body=body,
        style=STYLE,
    )


def format_score(value: float) -> str:
    """Return a score with three digits after the point."""
    return f"{value:.3f}" if np.isfinite(value) else "not defined"


def _list_checks(evaluation: Evaluation) -> str:
    """Return leaks, what was not checked, and what was left out."""
    found = evaluation.leaks.found
    text = "<p>No leak was found.</p>"
    if found:
        text = '<p class="low">These leaks were found, so scores are too good:</p>'
        text += _list_lines(found)
    if evaluation.leaks.unchecked:
        text += f"<h3>Not checked</h3>{_list_lines(evaluation.leaks.unchecked)}"
    if evaluation.left_out:
        text += f"<h3>Left out</h3>{_list_lines(evaluation.left_out)}"
    return text


def _list_lines(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _show_part(part: Part) -> str:
    """Return the means of all methods, and the scores of each slide."""
    text = f"<p>{escape(part.text)} {BEST}</p>"
    if len(part.rows):
        text += _show_means(part) + _show_slides(part)
    return text + _list_lines(part.notes)


def _show_means(part: Part) -> str:
    means = part.means()
    best = _find_best(part, means)
    rows = []
    for row in means.to_dict("records"):
        method = str(row["method"])
        numbers = [_cell(part, row, name, is_best=best[name] == method) for name in part.metrics]
        slides = f'<span class="who">slides: </span>{row["n_slides"]}'
        rows.append([escape(METHODS[method][0]), row["kind"], *numbers, slides])
    header = ["mean over slides", "kind", *part.metrics.values(), "slides"]
    numeric = range(2, len(header))
    return make_table(header, rows, numeric=numeric, layout="stacked")


def _show_slides(part: Part) -> str:
    """Return the scores of each slide, to be opened."""
    rows = []
    for row in part.rows.to_dict("records"):
        numbers = [_cell(part, row, name) for name in part.metrics]
        spots = f'<span class="who">spots: </span>{row["n_spots"]:,}'
        slide = escape(str(row["slide"]))
        rows.append([slide, escape(METHODS[str(row["method"])][0]), *numbers, spots])
    header = ["slide", "method", *part.metrics.values(), "spots"]
    table = make_table(header, rows, numeric=range(2, len(header)), layout="stacked")
    return f"<details><summary>Scores of each slide</summary>{table}</details>"


def _find_best(part: Part, means: Any) -> dict[str, str]:
    """Return the method with the best mean of each metric, "" if no mean is defined."""
    best = {}
    for name in part.metrics:
        values = means[name].to_numpy(dtype=float)
        if name in LOWER_IS_BETTER:
            values = -values
        is_defined = np.isfinite(values)
        best[name] = ""
        if is_defined.any():
            best[name] = str(means["method"].iloc[np.nanargmax(values)])
    return best


def _cell(part: Part, row: dict[Any, Any], name: str, *, is_best: bool = False) -> str:
    """Return a score, with the name of its metric on a narrow page, where columns have none."""
    value = format_score(float(row[name]))
    text = f"<b>{value}</b>" if is_best else value
    return f'<span class="who">{escape(part.metrics[name])}: </span>{text}'


def _list_slides(evaluation: Evaluation) -> str:
    rows = [
        [
            escape(table.name),
            escape(table.side),
            escape(table.patient or "unknown patient"),
            f'<span class="who">spots: </span>{table.n_spots:,}',
            f'<span class="who">left out: </span>{table.n_left_out:,}',
        ]
        for table in evaluation.tables
    ]
    header = ["slide", "side", "patient", "spots", "left out"]
    text = (
        f"<p>The side '{TRAIN}' has the references, and the baselines are fitted to it. The side "
        f"'{escape(evaluation.options.split)}' is scored.</p>"
    )
    return text + make_table(header, rows, numeric=[3, 4], layout="stacked")


def _describe(evaluation: Evaluation) -> str:
    """Return model, collection, settings and version."""
    options = evaluation.options
    model = evaluation.model
    rows = [
        ["model", escape(f"{readable(model['name'])}, a {model['class']}")],
        ["digest of the model", escape(model["digest"])],
        ["digest of the collection", escape(evaluation.collection)],
        ["scored side", escape(options.split)],
        ["column of patients", escape(options.by)],
        ["column of labels", escape(options.label or "none")],
        ["seed", str(options.seed)],
        ["spots of a slide, at most", f"{options.max_spots:,}"],
        ["slides of a side, at most", f"{options.max_stores:,}"],
        ["near-duplicates", "searched" if options.find_duplicates else "not searched"],
        ["version of stp", escape(__version__)],
    ]
    return make_table(["setting", "value"], rows, layout="stacked")


STYLE = """
li { max-width: 46rem; overflow-wrap: anywhere; }
.who { display: none; color: var(--quiet); }
@media (max-width: 600px) { .who { display: inline; } }
"""
