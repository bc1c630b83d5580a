"""Short descriptions of objects, as text for a terminal and as HTML for a notebook."""

from collections.abc import Mapping
from html import escape
from typing import NamedTuple


class Summary(NamedTuple):
    """What describes an object: its class, and values by their names."""

    title: str
    rows: Mapping[str, str]


def summary_text(summary: Summary) -> str:
    """Return the class in a line, and below it a line per value."""
    width = max(map(len, summary.rows))
    lines = [f"    {name:<{width}}  {value}" for name, value in summary.rows.items()]
    return "\n".join([summary.title, *lines])


def summary_html(summary: Summary) -> str:
    """Return a table with a row per value."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in summary.rows.items()
    )
    return f"<table><caption><b>{escape(summary.title)}</b></caption>{rows}</table>"
