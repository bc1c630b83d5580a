"""One HTML page that shows what a collection of stores holds, and what needs a look."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from stp._atomic import write_atomically
from stp._progress import track
from stp.data.collection import Collection
from stp.io._store_measures import MEASURES
from stp.workflows.collection_report_charts import (
    cell_text,
    draw_histogram,
    draw_totals,
    format_number,
)
from stp.workflows.collection_report_checks import (
    list_checks,
    list_duplicates,
    list_failures,
    list_problems,
    read_failures,
)
from stp.workflows.collection_report_slides import choose_side, draw_slide

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_failures", "write_report"]

TOTALS = ("organ", "platform", "species", "source", "disease")  # columns that are drawn as bars
HISTOGRAMS = (
    "n_spots",
    "n_genes",
    "n_trainable",
    "umis_per_spot",
    "genes_per_spot",
    "tokens_per_spot",
    "share_of_umis_recognized",
    "share_on_tissue",
    "share_on_image",
    "um_per_px",
    "patch_um_per_px",
    "sharpness",
)
CAPTION = ("organ", "platform", "patient")  # columns that are shown under each picture


def write_report(
    collection: Collection,
    path: str | Path,
    *,
    failures: Sequence[Mapping[str, str]] = (),
    duplicates: "pd.DataFrame | None" = None,
) -> None:
    """Write a page that opens from file in any browser, without a network.

    Parameters
    ----------
    collection
        Stores with a table that describes them.
    path
        The new HTML file. It is replaced if it is there.
    failures
        Rows that failed: dicts with `name`, `path` and `error`, as of `read_failures`.
    duplicates
        Pairs of stores that share counts or images, as of `stp.tl.find_duplicates`.
    """
    table = collection.table.reset_index(drop=True)
    failed = ("Failed", list_failures(failures) if failures else "<p>No row failed.</p>")
    sections = [failed]
    if not table.empty:
        sections = [
            ("Totals", _totals(table)),
            failed,
            ("Cannot be trained on", list_problems(table)),
            ("Worst slides of each check", list_checks(table)),
            ("Copies", _copies(table, duplicates)),
            ("Distributions", _histograms(table)),
            ("Slides", _pictures(collection, table)),
        ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
    title = f"{len(table):,} slides"
    page = PAGE.replace("[[title]]", title).replace("[[facts]]", _facts(table, failures))
    text = page.replace("[[body]]", body)
    write_atomically(
        Path(path), lambda file: file.write_text(text, encoding="utf-8", errors="replace")
    )


def _facts(table: "pd.DataFrame", failures: Sequence[Mapping[str, str]]) -> str:
    """Return the largest numbers of the collection."""
    facts = [_fact(len(table), "slide")]
    if not table.empty:
        facts += _list_facts(table)
    if failures:
        facts.append(f"<div><b>{len(failures):,}</b> failed</div>")
    return "".join(facts)


def _list_facts(table: "pd.DataFrame") -> list[str]:
    facts = [_fact(int(table["n_spots"].sum()), "spot")]
    if "n_trainable" in table:
        facts.append(_fact(int(table["n_trainable"].sum()), "spot", " to train on"))
    for column in ("patient", "organ", "platform", "source"):
        if column in table:
            facts.append(_fact(table[column].nunique(), column))
    if "n_bytes" in table:
        facts.append(f"<div><b>{_size(float(table['n_bytes'].sum()))}</b> on disk</div>")
    return facts


def _fact(number: int, noun: str, more: str = "") -> str:
    return f"<div><b>{number:,}</b> {noun}{'' if number == 1 else 's'}{more}</div>"


def _size(n_bytes: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{format_number(float(f'{n_bytes / factor:.3g}'))} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def _totals(table: "pd.DataFrame") -> str:
    cards = [draw_totals(table, column) for column in TOTALS if column in table]
    return f'<div class="cards wide">{"".join(cards)}</div>' if cards else ""


def _histograms(table: "pd.DataFrame") -> str:
    cards = [
        draw_histogram(table[column], column, MEASURES[column])
        for column in HISTOGRAMS
        if column in table
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _copies(table: "pd.DataFrame", duplicates: "pd.DataFrame | None") -> str:
    if duplicates is None:
        return "<p>Not searched; stp.tl.find_duplicates(collection) searches them.</p>"
    if duplicates.empty:
        return "<p>No two stores share counts or images.</p>"
    return list_duplicates(table, duplicates)


def _pictures(collection: Collection, table: "pd.DataFrame") -> str:
    side = choose_side(len(table))
    return f'<div class="pictures">{"".join(_draw_pictures(collection, table, side))}</div>'


def _draw_pictures(collection: Collection, table: "pd.DataFrame", side: int) -> Iterator[str]:
    """Yield each slide with its name and a few facts."""
    for row, path in enumerate(track(list(collection), "draw slides", "slide")):
        name = str(table["name"].iloc[row])
        picture = draw_slide(path, name, side)
        yield (
            f'<figure id="slide-{row}">{picture}<figcaption><b>{escape(name)}</b><br>'
            f"{escape(', '.join(_caption(table, row)))}</figcaption></figure>"
        )


def _caption(table: "pd.DataFrame", row: int) -> list[str]:
    """Return what is written under the picture of a slide."""
    facts = []
    for column in CAPTION:
        value = cell_text(table[column].iloc[row]) if column in table else ""
        if value:
            facts.append(f"patient {value}" if column == "patient" else value)
    return [*facts, f"{int(table['n_spots'].iloc[row]):,} spots"]


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Collection: [[title]]</title>
<style>
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
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 285px), 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: .8rem .9rem; margin: 0; }
.bars { display: grid; grid-template-columns: minmax(0, 1fr) 2.4rem minmax(0, 1fr) 4.4rem;
gap: 0 .5rem; align-items: center; font-size: .85rem; padding: .2rem 0; }
.bars.head { color: var(--quiet); }
.label { grid-column: 1 / -1; overflow-wrap: anywhere; line-height: 1.3; }
.bar { width: 100%; height: .75rem; } .bar.spots rect { fill: var(--spots); }
.bar.slides rect, .histogram rect { fill: var(--slides); }
.histogram { width: 100%; height: auto; display: block; }
.histogram line { stroke: var(--quiet); } .histogram text { fill: var(--quiet); font-size: 11px; }
.one { color: var(--quiet); }
figcaption { font-size: .82rem; color: var(--quiet); line-height: 1.35; overflow-wrap: anywhere; }
figcaption b { color: var(--text); }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; margin: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.1rem .25rem 0; }
th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
td { border-top: 1px solid var(--line); overflow-wrap: break-word; max-width: 36rem; }
td:last-child { min-width: 12rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 600px) { .short :is(th, td):nth-child(n+5) { display: none; }
.stacked thead { display: none; }
.stacked tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; }
.stacked td, .stacked td.number { display: block; border: none; padding: .1rem 0;
text-align: left; overflow-wrap: anywhere; } .stacked td:first-child { font-weight: 600; } }
.low { color: var(--low); }
.pictures { display: grid; gap: 1rem .9rem; align-items: end;
grid-template-columns: repeat(auto-fill, minmax(min(150px, 44%), 1fr)); }
.pictures figure { margin: 0; min-width: 0; content-visibility: auto;
contain-intrinsic-size: auto 220px; }
.pictures figure:target { outline: 3px solid var(--spots); outline-offset: 4px; }
.pictures img { width: 100%; border-radius: 4px; display: block; background: #fff; }
.none { background: var(--card); color: var(--quiet); border-radius: 4px; padding: 2rem .8rem;
font-size: .82rem; overflow-wrap: anywhere; }
</style></head><body>
<h1>Collection of [[title]]</h1>
<div class="facts">[[facts]]</div>
[[body]]
</body></html>
"""
