"""Our scores of whole slides next to those of the paper."""

import numpy as np
import pandas as pd

from benchmarks.accuracy.tables import markdown
from benchmarks.measure import Row

# Table 5 of the paper: UNI, STAMP, and the best of all other models. The four mutations are in
# figure 3 only, without numbers.
PAPER: dict[tuple[str, str], dict[str, str]] = {
    ("ubc", "auroc"): {"UNI": "0.9732", "STAMP": "0.9743", "best other": "GPFM 0.9788"},
    ("ubc", "accuracy"): {"UNI": "0.7937", "STAMP": "0.8141", "best other": "GigaPath 0.8178"},
    ("nsclc", "auroc"): {"UNI": "0.9695", "STAMP": "0.9662", "best other": "mSTAR 0.9730"},
    ("nsclc", "accuracy"): {"UNI": "0.9203", "STAMP": "0.9087", "best other": "mSTAR 0.9270"},
    ("panda", "auroc"): {"UNI": "0.9455", "STAMP": "0.9471", "best other": "GigaPath 0.9525"},
    ("panda", "accuracy"): {"UNI": "0.7042", "STAMP": "0.7087", "best other": "GPFM 0.7321"},
    ("survival", "harrell_c"): {
        "UNI": "LUAD 0.6312, LUSC 0.6273",
        "STAMP": "LUAD 0.6385, LUSC 0.6321",
        "best other": "LUAD GigaPath 0.6544, LUSC mSTAR 0.6323",
    },
}
NO_NUMBER = "no number in the text"
UNITS = {"auroc": "AUROC", "accuracy": "accuracy", "harrell_c": "C-index"}
CHOICES = (
    "gated attention of widths 512 and 256, dropout 0.25, and one patient a step",
    "five folds by patient for every task, with about the same share of classes in each",
    "epochs are chosen on a fifth of the training patients; the test fold is read once",
    "each mutation has a model, and no class is weighted",
    "survival has four intervals, whose edges are quartiles of the times of training events",
    "AUROC of several classes is the mean of one-versus-rest; survival is scored by Harrell's C",
    "scores are means over folds, with 95 % intervals by resampling patients",
)


def show(task: str, table: pd.DataFrame) -> str:
    """Return the scores next to those of the paper as Markdown, and the differences if any."""
    rows = {}
    for row in table.itertuples():
        paper = PAPER.get((task, row.score), dict.fromkeys(("UNI", "STAMP", "best other"), ""))
        cells = {"score": UNITS[row.score], "ours": _estimate(row.value, row.low, row.high)}
        cells["patients"] = _describe_patients(row)
        cells |= {f"paper: {name}": value or NO_NUMBER for name, value in paper.items()}
        if "difference" in table:
            cells["difference"] = _difference(row)
        rows[f"{row.target}, {row.features}, {UNITS[row.score]}"] = cells
    return markdown(pd.DataFrame.from_dict(rows, orient="index"))


def result_rows(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a result table."""
    rows: list[Row] = []
    for row in table.itertuples():
        common: Row = {"unit": UNITS[row.score], "split": "5 folds, by patient"}
        name = f"{row.target}, {row.features}"
        rows.append({"measured": name, "result": _cell(row.value, row.low, row.high), **common})
        if "difference" in table and not pd.isna(row.difference):
            cell = _cell(row.difference, row.difference_low, row.difference_high)
            rows.append({"measured": f"{name} minus {row.baseline}", "result": cell, **common})
    return rows


def _cell(value: float, low: float, high: float) -> Row | float:
    if np.isnan(low):
        return round(value, 4)
    return {"mean": round(value, 4), "range": [round(low, 4), round(high, 4)]}


def _estimate(value: float, low: float, high: float) -> str:
    interval = " (no interval)" if np.isnan(low) else f" [{low:.4f}, {high:.4f}]"
    return f"{value:.4f}{interval}"


def _describe_patients(row: "pd.Series") -> str:
    text = str(row.n_patients)
    if row.n_positives >= 0:
        text += f", {row.n_positives} positive"
    if row.n_events >= 0:
        text += f", {row.n_events} events"
    return text


def _difference(row: "pd.Series") -> str:
    if pd.isna(row.difference):
        return "baseline"
    estimate = _estimate(row.difference, row.difference_low, row.difference_high)
    return f"{estimate}, p = {row.p:.3f}"
