"""HTML pages that open from file in any browser, without a network: their frame and tables."""

from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

import numpy as np

from stp._atomic import write_atomically


def write_page(
    path: str | Path, *, title: str, heading: str, facts: str, body: str, style: str = ""
) -> None:
    """Write a page; no browser loads anything else for it, and no script runs in it.

    Parameters
    ----------
    path
        The new HTML file. It is replaced if it is there.
    title
        Title of the window, as text.
    heading
        First line of the page, as text.
    facts
        Largest numbers, as HTML of `make_fact`.
    body
        Content of the page, as HTML.
    style
        CSS of this page, in addition to that of all pages.
    """
    text = (
        FRAME.replace("[[title]]", escape(title))
        .replace("[[style]]", STYLE + style)
        .replace("[[heading]]", escape(heading))
        .replace("[[facts]]", facts)
        .replace("[[body]]", body)
    )
    write_atomically(
        Path(path), lambda file: file.write_text(text, encoding="utf-8", errors="replace")
    )


def make_fact(number: int, noun: str, more: str = "") -> str:
    """Return a large number with its noun as HTML."""
    return f"<div><b>{number:,}</b> {noun}{'' if number == 1 else 's'}{more}</div>"


def format_number(value: float) -> str:
    """Return a number with at most three digits after the first, and commas."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell_text(value: object) -> str:
    """Return a value of a table as text, "" if it is missing."""
    is_missing = value is None or (isinstance(value, float) and np.isnan(value))
    return "" if is_missing or str(value) == "<NA>" else str(value)


def make_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Collection[int] = (),
    layout: str = "short",
) -> str:
    """Return an HTML table.

    Parameters
    ----------
    header
        Names of the columns, as text.
    rows
        Cells of each row, as HTML.
    numeric
        Positions of the columns of numbers.
    layout
        What a narrow page shows: "stacked" writes the cells of a row one below the other, "short"
        leaves out all columns after the fourth.
    """
    cells = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = []
    for row in rows:
        classes = [' class="number"' if column in numeric else "" for column in range(len(row))]
        columns = (f"<td{name}>{cell}</td>" for name, cell in zip(classes, row, strict=True))
        lines.append(f"<tr>{''.join(columns)}</tr>")
    return (
        f'<div class="scroll"><table class="{layout}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>[[title]]</title>
<style>[[style]]</style></head><body>
<h1>[[heading]]</h1>
<div class="facts">[[facts]]</div>
[[body]]
</body></html>
"""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f5f6f8; --text: #1c2330;
--quiet: #5b6472; --line: #d7dbe2; --slides: #3567a6; --spots: #b3622a; --low: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1e232b;
--text: #e6e9ee; --quiet: #a3acba; --line: #363e4a; --slides: #7fb0ea; --spots: #e0a06c;
--low: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 0 auto; padding: 1.2rem;
background: var(--page); color: var(--text); }
h1 { font-size: 1.6rem; margin: 0 0 .6rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .7rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: var(--slides); } p { max-width: 46rem; margin: .4rem 0; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; color: var(--quiet); }
.facts b { color: var(--text); font-size: 1.15rem; }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: .8rem .9rem; margin: 0; }
figcaption { font-size: .82rem; color: var(--quiet); line-height: 1.35; overflow-wrap: anywhere; }
figcaption b { color: var(--text); }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; margin: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.1rem .25rem 0; }
th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
td { border-top: 1px solid var(--line); overflow-wrap: break-word; max-width: 36rem; }
td:last-child:not(.number) { min-width: 12rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 600px) { .short :is(th, td):nth-child(n+5) { display: none; }
.stacked thead { display: none; }
.stacked tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; }
.stacked td, .stacked td.number { display: block; border: none; padding: .1rem 0;
text-align: left; overflow-wrap: anywhere; } .stacked td:first-child { font-weight: 600; } }
.low { color: var(--low); }
"""
