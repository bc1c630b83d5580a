"""Bars and histograms of a collection as SVG in HTML."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from stp.workflows.page import cell_text, format_number

if TYPE_CHECKING:
    import pandas as pd

N_CATEGORIES = 15  # the others are summed
UNKNOWN = "unknown"
N_BINS = 24
LOG_RANGE = 20.0  # of values that are drawn on a logarithmic axis
WIDTH = 240  # of a histogram, in units that scale with the page
HEIGHT = 84
BASE = 66  # y of the axis


def draw_totals(table: "pd.DataFrame", column: str) -> str:
    """Return the numbers of slides and spots of each value of a column, as two bars each."""
    values = table[column].map(_read_category)
    totals = table.groupby(values.to_numpy())["n_spots"].agg(["size", "sum"])
    totals = totals.sort_values(["size", "sum"], ascending=False, kind="stable")
    rows = [(str(name), int(row["size"]), int(row["sum"])) for name, row in totals.iterrows()]
    if len(rows) > N_CATEGORIES:
        others = rows[N_CATEGORIES - 1 :]
        n_slides = sum(n for _, n, _ in others)
        n_spots = sum(n for _, _, n in others)
        rows = [*rows[: N_CATEGORIES - 1], (f"{len(others)} others", n_slides, n_spots)]
    most_slides = max(n for _, n, _ in rows)
    most_spots = max(max(n for _, _, n in rows), 1)
    lines = [
        f'<div class="bars"><span class="label">{escape(name)}</span>'
        f"{_bar(n_slides / most_slides, 'slides')}<span>{n_slides:,}</span>"
        f"{_bar(n_spots / most_spots, 'spots')}<span>{n_spots:,}</span></div>"
        for name, n_slides, n_spots in rows
    ]
    return (
        f'<div class="card"><h3>{escape(column)}</h3><div class="bars head">'
        f"<span>slides</span><span></span><span>spots</span><span></span></div>"
        f"{''.join(lines)}</div>"
    )


def draw_histogram(values: "pd.Series", title: str, description: str) -> str:
    """Return the histogram of a measure, on a logarithmic axis if its range is wide."""
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    n_missing = int(np.isnan(numbers).sum())
    numbers = numbers[np.isfinite(numbers)]
    missing = f", {n_missing:,} unknown" if n_missing else ""
    if not len(numbers):
        return ""
    low, high = float(numbers.min()), float(numbers.max())
    median = float(np.median(numbers))
    if low == high:
        picture = f'<p class="one">all {format_number(low)}</p>'
        caption = f"{len(numbers):,} slides{missing}"
    else:
        picture = _histogram(numbers)
        caption = f"median {format_number(median)}{missing}"
    return (
        f'<figure class="card"><h3>{escape(title)}</h3>{picture}'
        f"<figcaption>{escape(description)}; {caption}</figcaption></figure>"
    )


def _read_category(value: object) -> str:
    """Return a value as text; missing and empty ones are unknown."""
    text = cell_text(value).strip()
    return text or UNKNOWN


def _bar(share: float, css_class: str) -> str:
    return (
        f'<svg class="bar {css_class}" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{max(100 * share, 0.5):.1f}" height="10"/></svg>'
    )


def _histogram(numbers: np.ndarray) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    is_log = low > 0 and high / low > LOG_RANGE
    make_edges = np.geomspace if is_log else np.linspace
    edges = make_edges(low, high, N_BINS + 1)
    edges[0], edges[-1] = low, high  # which rounding may have moved
    counts, _ = np.histogram(numbers, edges)
    axis = "logarithmic axis" if is_log else ""
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"{''.join(_columns(counts, edges))}"
        f'<line x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
        f'<text x="0" y="{HEIGHT - 4}">{format_number(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle" class="axis">{axis}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{format_number(high)}</text></svg>'
    )


def _columns(counts: np.ndarray, edges: np.ndarray) -> Iterator[str]:
    step = WIDTH / len(counts)
    for number, count in enumerate(counts):
        if count:
            height = max(BASE * count / counts.max(), 1.5)
            limits = f"{format_number(edges[number])} to {format_number(edges[number + 1])}"
            yield (
                f'<rect x="{number * step + 0.5:.1f}" y="{BASE - height:.1f}" '
                f'width="{step - 1:.1f}" height="{height:.1f}">'
                f"<title>{limits}: {count:,} slides</title></rect>"
            )
