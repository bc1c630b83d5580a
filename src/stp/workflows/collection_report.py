"""One HTML page that shows what a collection of stores holds, and what needs a look."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from stp._progress import track
from stp.data.collection import Collection
from stp.io._store_measures import MEASURES
from stp.workflows.collection_report_charts import draw_histogram, draw_totals
from stp.workflows.collection_report_checks import (
    list_checks,
    list_duplicates,
    list_failures,
    list_problems,
)
from stp.workflows.collection_report_slides import choose_side, draw_slide
from stp.workflows.page import cell_text, format_number, make_fact, write_page

if TYPE_CHECKING:
    import pandas as pd


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
        Rows that failed: dicts with `name`, `path` and `error`.
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
    write_page(
        path,
        title=f"Collection: {title}",
        heading=f"Collection of {title}",
        facts=_facts(table, failures),
        body=body,
        style=STYLE,
    )


def _facts(table: "pd.DataFrame", failures: Sequence[Mapping[str, str]]) -> str:
    """Return the largest numbers of the collection."""
    facts = [make_fact(len(table), "slide")]
    if not table.empty:
        facts += _list_facts(table)
    if failures:
        facts.append(f"<div><b>{len(failures):,}</b> failed</div>")
    return "".join(facts)


def _list_facts(table: "pd.DataFrame") -> list[str]:
    facts = [make_fact(int(table["n_spots"].sum()), "spot")]
    if "n_trainable" in table:
        facts.append(make_fact(int(table["n_trainable"].sum()), "spot", " to train on"))
    for column in ("patient", "organ", "platform", "source"):
        if column in table:
            facts.append(make_fact(table[column].nunique(), column))
    if "n_bytes" in table:
        facts.append(f"<div><b>{_size(float(table['n_bytes'].sum()))}</b> on disk</div>")
    return facts


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


STYLE = """
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 285px), 1fr)); }
.bars { display: grid; grid-template-columns: minmax(0, 1fr) 2.4rem minmax(0, 1fr) 4.4rem;
gap: 0 .5rem; align-items: center; font-size: .85rem; padding: .2rem 0; }
.bars.head { color: var(--quiet); }
.label { grid-column: 1 / -1; overflow-wrap: anywhere; line-height: 1.3; }
.bar { width: 100%; height: .75rem; } .bar.spots rect { fill: var(--spots); }
.bar.slides rect, .histogram rect { fill: var(--slides); }
.histogram { width: 100%; height: auto; display: block; }
.histogram line { stroke: var(--quiet); } .histogram text { fill: var(--quiet); font-size: 11px; }
.one { color: var(--quiet); }
.pictures { display: grid; gap: 1rem .9rem; align-items: end;
grid-template-columns: repeat(auto-fill, minmax(min(150px, 44%), 1fr)); }
.pictures figure { margin: 0; min-width: 0; content-visibility: auto;
contain-intrinsic-size: auto 220px; }
.pictures figure:target { outline: 3px solid var(--spots); outline-offset: 4px; }
.pictures img { width: 100%; border-radius: 4px; display: block; background: #fff; }
.none { background: var(--card); color: var(--quiet); border-radius: 4px; padding: 2rem .8rem;
font-size: .82rem; overflow-wrap: anywhere; }
"""
