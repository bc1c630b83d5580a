"""Scores of slides as CSV, Markdown and a figure: mean and spread as in the paper, and intervals over patients."""

from pathlib import Path

import numpy as np
import pandas as pd

MIN_PATIENTS = 5  # fewer allow no interval: then every value is shown
KEYS = ["method", "patient", "slide"]


def per_slide(scores: pd.DataFrame) -> pd.DataFrame:
    """Average seeds and folds: a row per method, patient and slide, a column per metric."""
    wide = scores.pivot_table(index=KEYS, columns="metric", values="value", sort=False)
    return wide[list(dict.fromkeys(scores["metric"]))]


def paper_table(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over slides or folds, a row per method; empty where nothing could be scored."""
    slides = per_slide(scores).groupby("method")
    mean, spread = slides.mean().reindex(methods), slides.std().reindex(methods)
    cells = {
        metric: [_cell(m, s) for m, s in zip(mean[metric], spread[metric], strict=True)]
        for metric in mean.columns
    }
    return pd.DataFrame(
        {**cells, "n": slides.size().reindex(methods).astype("Int64")}, index=pd.Index(methods)
    )


def _cell(mean: float, spread: float) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def over_patients(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Mean over patients with its 95 % interval; of fewer than five patients every value, and their number."""
    patients = per_slide(scores).groupby(["method", "patient"]).mean()
    rows = {}
    for method in methods:
        of = (
            patients.loc[method]
            if method in patients.index.get_level_values(0)
            else patients.iloc[:0]
        )
        rows[method] = {metric: _interval(of[metric].dropna()) for metric in patients.columns}
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

    how = {"method": "percentile", "n_resamples": 9999, "random_state": seed}
    found = resample((values,), np.mean, **how).confidence_interval
    return float(found.low), float(found.high)


def differences(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Paired difference of each method from a baseline, slide by slide."""
    wide = per_slide(scores)
    base = wide.xs(baseline, level="method")
    return wide.sub(base.reindex(wide.index.droplevel("method")).set_axis(wide.index)).drop(
        index=baseline
    )


def write(
    out: Path, title: str, scores: pd.DataFrame, methods: list[str], baseline: str, notes: list[str]
) -> None:
    """Write scores.csv, differences.csv from a baseline, table.csv, table.md and scores.png into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    scores.to_csv(out / "scores.csv", index=False)
    differences(scores, baseline).to_csv(out / "differences.csv")
    table, patients = paper_table(scores, methods), over_patients(scores, methods)
    table.to_csv(out / "table.csv", index_label="method")
    parts = [f"# {title}", "Mean ± standard deviation over slides or folds.", markdown(table)]
    parts += ["Over patients.", markdown(patients), *[f"- {note}" for note in notes]]
    (out / "table.md").write_text("\n\n".join(parts) + "\n")
    save(draw(scores, methods, title), out / "scores.png")


def save(figure, path: Path) -> None:
    """Write a figure and let go of it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    lines = [["", *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    lines += [
        [str(name), *("" if pd.isna(cell) else str(cell) for cell in row)]
        for name, row in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(scores: pd.DataFrame, methods: list[str], title: str):
    """Draw a panel per metric: every slide as a dot in the color of its patient, the mean as a bar."""
    import matplotlib.pyplot as plt

    slides = per_slide(scores).reset_index()
    metrics = [name for name in slides.columns if name not in KEYS]
    patients = sorted(slides["patient"].unique())
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
            of = slides[slides["method"] == method]
            ax.barh(row, of[metric].mean() if len(of) else 0, color="0.85")
            for number, patient in enumerate(patients):
                values = of.loc[of["patient"] == patient, metric]
                ax.plot(
                    values,
                    [row] * len(values),
                    "o",
                    color=f"C{number % 10}",
                    markersize=4,
                    label=patient if row == 0 else None,
                )
        ax.set(title=metric, yticks=range(len(methods)), yticklabels=methods)
    axes[0, 0].invert_yaxis()
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=f"C{n % 10}")
        for n in range(len(patients))
    ]
    axes[0, -1].legend(
        handles,
        patients,
        title="patient",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
    )
    figure.suptitle(title)
    return figure
