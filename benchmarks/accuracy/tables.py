"""Scores of slides as tables and a figure: mean and spread, and intervals over patients."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.measure import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_PATIENTS = 5  # fewer allow no interval: then every value is shown
KEYS = ["method", "patient", "slide"]
COLUMNS = ["method", "slide", "patient", "seed", "metric", "value"]
TITLES = {"ari": "ARI", "nmi": "NMI"}


class Outcome(NamedTuple):
    """What a task of the paper's protocols gives."""

    title: str
    methods: list[str]  # all that could be scored, in the order of the table
    scores: pd.DataFrame  # a row per method, slide, seed and metric, in these `COLUMNS`
    notes: list[str]  # what a reader must know


def per_slide(scores: pd.DataFrame) -> pd.DataFrame:
    """Average seeds and folds: a row per method, patient and slide, a column per metric."""
    wide = scores.pivot_table(index=KEYS, columns="metric", values="value", sort=False)
    return wide[list(dict.fromkeys(scores["metric"]))]


def per_patient(scores: pd.DataFrame) -> pd.DataFrame:
    """Average slides: a row per method and patient, a column per metric."""
    return per_slide(scores).groupby(["method", "patient"]).mean()


def paper_table(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return mean and standard deviation over slides or folds, a row per method.

    Cells are empty if nothing could be scored.
    """
    slides = per_slide(scores).groupby("method")
    mean = slides.mean().reindex(methods)
    spread = slides.std().reindex(methods)
    table = pd.DataFrame(index=pd.Index(methods))
    for metric in mean.columns:
        pairs = zip(mean[metric], spread[metric], strict=True)
        table[metric] = [_mean_and_spread(*pair) for pair in pairs]
    table["n"] = slides.size().reindex(methods).astype("Int64")
    return table


def _mean_and_spread(mean: float, spread: float) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def over_patients(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return the mean over patients with its 95 % interval, a row per method.

    If there are fewer than five patients, cells show every value and their number.
    """
    patients = per_patient(scores)
    rows = {}
    for method in methods:
        has_scores = method in patients.index.get_level_values(0)
        values = patients.loc[method] if has_scores else patients.iloc[:0]
        rows[method] = {metric: _interval(values[metric].dropna()) for metric in patients.columns}
    return pd.DataFrame.from_dict(rows, orient="index")


def _interval(values: pd.Series) -> str:
    if values.empty:
        return ""
    if len(values) < MIN_PATIENTS:
        shown = ", ".join(f"{patient} {value:.3f}" for patient, value in values.items())
        return f"{values.mean():.3f} ({shown}; n = {len(values)})"
    low, high = bootstrap(values.to_numpy())
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}], n = {len(values)}"


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over patients."""
    from scipy.stats import bootstrap as resample

    interval = resample(
        (values,), np.mean, method="percentile", n_resamples=9999, random_state=seed
    ).confidence_interval
    return float(interval.low), float(interval.high)


def result_rows(task: str, scores: pd.DataFrame, methods: list[str]) -> list[Row]:
    """Return rows for the page of results: mean over patients, and each patient or the interval."""
    patients = per_patient(scores)
    rows = []
    for method in methods:
        if method not in patients.index.get_level_values(0):
            continue
        row: Row = {"task": task, "method": method}
        for metric in patients.columns:
            values = patients.loc[method, metric].dropna()
            if len(values):
                row[TITLES.get(metric, metric.replace("_", " "))] = _cell(values)
        rows.append(row)
    return rows


def _cell(values: pd.Series) -> float | dict[str, float | list[float]]:
    mean = round(float(values.mean()), 3)
    if len(values) == 1:
        return mean
    if len(values) < MIN_PATIENTS:
        by_patient = {str(patient): round(float(value), 3) for patient, value in values.items()}
        return {"mean": mean, **by_patient}
    return {"mean": mean, "range": [round(edge, 3) for edge in bootstrap(values.to_numpy())]}


def differences(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the paired difference of each method from a baseline, slide by slide."""
    wide = per_slide(scores)
    base = wide.xs(baseline, level="method")
    paired = base.reindex(wide.index.droplevel("method")).set_axis(wide.index)
    return wide.sub(paired).drop(index=baseline)


def write_tables(folder: Path, outcome: Outcome, baseline: str) -> None:
    """Write scores.csv, differences.csv, table.csv, table.md and scores.png into a folder."""
    scores = outcome.scores
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_csv(folder / "scores.csv", index=False)
    differences(scores, baseline).to_csv(folder / "differences.csv")
    table = paper_table(scores, outcome.methods)
    table.to_csv(folder / "table.csv", index_label="method")
    parts = [
        f"# {outcome.title}",
        "Mean ± standard deviation over slides or folds.",
        markdown(table),
        "Over patients.",
        markdown(over_patients(scores, outcome.methods)),
        *[f"- {note}" for note in outcome.notes],
    ]
    (folder / "table.md").write_text("\n\n".join(parts) + "\n")
    save(draw(scores, outcome.methods, outcome.title), folder / "scores.png")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure and close it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    lines = [["", *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    for name, row in zip(table.index, table.itertuples(index=False), strict=True):
        lines.append([str(name), *("" if pd.isna(cell) else str(cell) for cell in row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(scores: pd.DataFrame, methods: list[str], title: str) -> "Figure":
    """Draw a panel per metric: a dot per slide in the color of its patient, a bar for the mean."""
    import matplotlib.pyplot as plt

    slides = per_slide(scores).reset_index()
    metrics = [name for name in slides.columns if name not in KEYS]
    colors = {
        patient: f"C{number % 10}" for number, patient in enumerate(sorted(set(slides["patient"])))
    }
    figure, axes = plt.subplots(
        1,
        len(metrics),
        figsize=(1.6 + 2.6 * len(metrics), 1.2 + 0.34 * len(methods)),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for row, method in enumerate(methods):
            scored = slides[slides["method"] == method]
            ax.barh(row, scored[metric].mean() if len(scored) else 0, color="0.85")
            for patient, color in colors.items():
                values = scored.loc[scored["patient"] == patient, metric]
                ax.plot(values, [row] * len(values), "o", color=color, markersize=4)
        ax.set(title=metric, yticks=range(len(methods)), yticklabels=methods)
    axes[0, 0].invert_yaxis()
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=color) for color in colors.values()
    ]
    axes[0, -1].legend(
        handles,
        list(colors),
        title="patient",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
    )
    figure.suptitle(title)
    return figure
