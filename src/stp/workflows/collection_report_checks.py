"""The rows of a collection that need a look: the worst of each check, copies, and failures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.data.collection import PROBLEM
from stp.workflows.page import cell_text, format_number, make_table

if TYPE_CHECKING:
    import pandas as pd

N_WORST = 20
CONTEXT = ("patient", "organ", "platform", "source")  # columns that are shown with each row


class Check(NamedTuple):
    """A column whose lowest values need a look.

    Parameters
    ----------
    column
        Name of the column.
    limit
        Values below are marked; None if there is no limit that fits all slides.
    hint
        What a low value means, and what to do.
    """

    column: str
    limit: float | None
    hint: str


CHECKS = (
    Check(
        "n_trainable",
        1,
        "Spots outside the tissue, or with fewer than 100 genes, are not trained on. Lower "
        "min_genes if the platform detects few genes.",
    ),
    Check(
        "share_of_umis_recognized",
        0.8,
        "Other genes are not in the vocabulary. Check species and gene names, or pass "
        "gene_ids_key=.",
    ),
    Check(
        "share_on_tissue",
        0.5,
        "The spots show glass. Look at the picture: the image may be that of another slide, or "
        "shifted, mirrored, or x and y may be swapped.",
    ),
    Check(
        "share_on_image",
        0.99,
        "Spots lie off the image. Check that the image is the one the coordinates are measured on.",
    ),
    Check(
        "umis_per_spot",
        None,
        "Shallow slides have few genes to rank. Check the sequencing depth of the source.",
    ),
    Check("genes_per_spot", None, "A low number has the same reasons as few UMIs."),
    Check(
        "sharpness",
        None,
        "A low value means an image that is blurred, or was enlarged from a small picture. Compare "
        "slides of one organ and one scale.",
    ),
)


def list_checks(table: "pd.DataFrame") -> str:
    """Return the worst rows of each check as HTML."""
    parts = [_list_worst(table, check) for check in CHECKS if check.column in table]
    return "".join(parts)


def list_problems(table: "pd.DataFrame") -> str:
    """Return the rows that cannot be trained on, with the reason, or "" if there are none."""
    if PROBLEM not in table:
        return ""
    problems = table[PROBLEM].fillna("").astype(str)
    rows = [
        [link(table, int(row)), escape(problems.iloc[row])]
        for row in np.flatnonzero((problems != "").to_numpy())
    ]
    return make_table(["slide", "why"], rows, layout="stacked") if rows else ""


def list_duplicates(table: "pd.DataFrame", duplicates: "pd.DataFrame") -> str:
    """Return the pairs of `stp.tl.find_duplicates` as HTML."""
    places = {str(name): row for row, name in enumerate(table["name"])}
    rows = []
    for pair in duplicates.itertuples():
        names = [
            link(table, places[name]) if name in places else escape(str(name))
            for name in (str(pair.first), str(pair.second))
        ]
        rows.append([*names, escape(str(pair.kind)), f"{pair.share:.0%}", escape(str(pair.note))])
    header = ["first", "second", "kind", "share", "note"]
    return make_table(header, rows, numeric=[3], layout="stacked")


def list_failures(failures: Sequence[Mapping[str, str]]) -> str:
    """Return what failed, with the error that names the remedy, as HTML."""
    fields = ("name", "error", "path")
    rows = [[escape(str(failure.get(field, ""))) for field in fields] for failure in failures]
    return make_table(["row", "error and remedy", "source"], rows, layout="stacked")


def link(table: "pd.DataFrame", row: int) -> str:
    """Return the name of a slide as a link to its picture."""
    return f'<a href="#slide-{row}">{escape(str(table["name"].iloc[row]))}</a>'


def _list_worst(table: "pd.DataFrame", check: Check) -> str:
    values = table[check.column].to_numpy(dtype=float, na_value=np.nan)
    worst = np.argsort(values, kind="stable")[:N_WORST]  # unknown values come last
    worst = worst[np.isfinite(values[worst])]
    if not len(worst):
        return ""
    columns = [column for column in CONTEXT if column in table]
    is_low = values < (-np.inf if check.limit is None else check.limit)
    rows = [
        [
            link(table, int(row)),
            _mark(values[row], bool(is_low[row])),
            *(escape(cell_text(table[column].iloc[row])) for column in columns),
        ]
        for row in worst
    ]
    n_low = int(is_low.sum())
    limit = "" if check.limit is None else f": {n_low:,} below {format_number(check.limit)}"
    return (
        f"<details{' open' if n_low else ''}><summary>{escape(check.column)}{limit}</summary>"
        f"<p>{escape(check.hint)}</p>"
        f"{make_table(['slide', 'value', *columns], rows, numeric=[1])}</details>"
    )


def _mark(value: float, is_low: bool) -> str:
    text = format_number(value)
    return f'<strong class="low">{text}</strong>' if is_low else text
