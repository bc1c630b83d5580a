"""Cells of CSV files that spreadsheets show and never run."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Spreadsheets take a text that begins so for a formula; tabs and line breaks may come before it.
_FORMULA = re.compile(r"\s*[=+\-@]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def quote_formula(value: object) -> object:
    """Return a text that a spreadsheet would run as a formula with a quote before it.

    Numbers stay as they are, also as text, and so do all other values.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def quote_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table whose texts and column names no spreadsheet runs as formulas."""
    return table.map(quote_formula).rename(columns=quote_formula)
